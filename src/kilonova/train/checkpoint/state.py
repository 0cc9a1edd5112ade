"""The state of a run as tensors by fully qualified name, which another number of ranks can load."""

from __future__ import annotations

import io
import random
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint import CheckpointException, FileSystemReader
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_optimizer_state_dict
from torch.optim import Optimizer

from kilonova.core.errors import CheckpointError

# Frozen parameters come from the recipe.
_OPTIONS = StateDictOptions(ignore_frozen_params=True)


def sharded_state(model: nn.Module, optimizers: list[Optimizer]) -> dict[str, Any]:
    """References to the trained parameters, copies of the buffers (a forward pass may change them) and references to
    the optimisers' state, without hyper-parameters, which the recipe gives.
    """
    moments = get_optimizer_state_dict(model, optimizers, options=_OPTIONS)
    return {"model": _weights(model), "optimizer": moments["state"]}


def load_sharded_state(
    path: Path, model: nn.Module, optimizers: list[Optimizer], rank: int, group: ProcessGroup | None
) -> bytes:
    """Load a checkpoint in place, resharded to the layout that model and optimisers have now.

    Returns what `rank` of those that saved it kept for itself.
    """
    reader = FileSystemReader(path)
    saved = reader.read_metadata().state_dict_metadata.keys()
    state = sharded_state(model, optimizers)
    if extra := [name for name in saved if name.startswith("model.") and name[6:] not in state["model"]]:
        raise CheckpointError(
            f"the checkpoint was made with other trained parameters ({extra[0][6:]} differs); "
            "go on with the same objective and adapter, or name another output folder"
        )
    _forget_what_was_not_saved(path, saved, state["optimizer"], model, optimizers)
    state[own_key(rank)] = b""
    try:
        # Every tensor is loaded into the memory of the live one.
        dcp.load(state, storage_reader=reader, process_group=group, no_dist=group is None)
    except (CheckpointException, RuntimeError, OSError, KeyError, AssertionError) as error:
        raise CheckpointError(f"{path} does not fit this run: {error}") from error
    _load_buffers(model, state["model"])
    return state[own_key(rank)]


def load_weights(path: Path, model: nn.Module) -> None:
    """Load the weights alone of a checkpoint into a model that no process group shards."""
    state = {"model": _weights(model)}
    try:
        dcp.load(state, storage_reader=FileSystemReader(path), no_dist=True)
    except (CheckpointException, RuntimeError, OSError, KeyError, AssertionError) as error:
        raise CheckpointError(f"{path} does not fit this run: {error}") from error
    _load_buffers(model, state["model"])


def own_key(rank: int) -> str:
    """Under which name a rank's own state is saved."""
    return f"rank{rank}"


def _weights(model: nn.Module) -> dict[str, Any]:
    """The trained parameters, tied ones once, and copies of the buffers."""
    weights = get_model_state_dict(model, options=_OPTIONS)
    once = {name for name, _ in model.named_parameters()}
    for name, _ in model.named_parameters(remove_duplicate=False):
        if name not in once:
            weights.pop(name, None)
    for name, buffer in model.named_buffers():
        if name in weights:
            weights[name] = buffer.detach().clone()
    return weights


def _load_buffers(model: nn.Module, weights: dict[str, Any]) -> None:
    for name, buffer in model.named_buffers():
        if name in weights:
            buffer.copy_(weights[name])


def _forget_what_was_not_saved(
    path: Path, saved: Collection[str], states: dict[str, Any], model: nn.Module, optimizers: list[Optimizer]
) -> None:
    """Drop the state of parameters that had no gradient before the checkpoint, such as those of an idle expert."""
    parameters = dict(model.named_parameters())
    for name, values in list(states.items()):
        if all(f"optimizer.{name}.{key}" in saved for key in values):
            continue
        if any(key.startswith(f"optimizer.{name}.") for key in saved):
            raise CheckpointError(f"{path} holds the state of another optimiser; name the same one, or start anew")
        del states[name]
        for optimizer in optimizers:
            optimizer.state.pop(parameters[name], None)


def random_state() -> dict[str, Any]:
    """The states of the generators of Python, NumPy and PyTorch (all devices) of this process."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def to_bytes(value: Any) -> bytes:
    """Serialise what is small and belongs to one rank."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
