"""Optimisers and which parameter each one moves."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

from kilonova.core.errors import ConfigError
from kilonova.train.muon import Muon
from kilonova.train.run_recipe import OptimizerSection


class OptimizerSet:
    """The optimisers of a run, stepped together; each parameter belongs to exactly one."""

    def __init__(self, model: nn.Module, section: OptimizerSection) -> None:
        matrices, embeddings, vectors = _split(model)
        if section.name == "adamw":
            embeddings = [*embeddings, *matrices]
            matrices = []
        groups = [
            {"params": parameters, "weight_decay": decay}
            for whole, decay in ((embeddings, section.weight_decay), (vectors, 0.0))
            for parameters in _by_mesh(whole)
        ]
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in model.parameters())
        self.optimizers: list[Optimizer] = [
            AdamW(groups, lr=section.lr, betas=section.betas, eps=section.eps, fused=fused)
        ]
        if matrices:
            if section.muon_lr is None:
                raise ConfigError("optimizer.muon_lr: muon needs it")
            self.optimizers.append(Muon(matrices, lr=section.muon_lr, weight_decay=section.weight_decay))
        self._peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def set_learning_rate_factor(self, factor: float) -> None:
        """Set every group's learning rate to `factor` of its peak."""
        for optimizer, peaks in zip(self.optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def _by_mesh(parameters: list[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    """Parameters sharded over the same ranks together: a fused optimiser cannot mix them."""
    groups: dict[object, list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
        groups.setdefault(mesh, []).append(parameter)
    return list(groups.values()) or [[]]


def _split(
    model: nn.Module,
) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """Trainable parameters: the layers' matrices, embeddings and other tensors (such as a head of one output), vectors
    (norms and biases)."""
    matrices, others, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif parameter.ndim == 2 and min(parameter.shape) > 1 and "embed" not in name and "lm_head" not in name:
            matrices.append(parameter)
        else:
            others.append(parameter)
    return matrices, others, vectors
