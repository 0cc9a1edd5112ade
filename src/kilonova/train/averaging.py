"""Averages of weights over the steps of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage(nn.Module):
    """The exponential moving average of a model's trained parameters, in buffers, which a checkpoint holds.

    Early on the average is short: `decay` is at most (1 + n) / (10 + n) at update n, as in TensorFlow's
    `ExponentialMovingAverage`.
    """

    num_updates: Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        for name in self._names:
            self.register_buffer(_buffer_name(name), model.get_parameter(name).detach().clone())

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights that `model` has now."""
        self.num_updates += 1
        count = int(self.num_updates)
        decay = min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(self._averages(), self._trained(model), 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give `model` the average for the time of the block."""
        parameters, averages = self._trained(model), self._averages()
        kept = [parameter.data for parameter in parameters]
        for parameter, average in zip(parameters, averages, strict=True):
            parameter.data = average
        try:
            yield
        finally:
            for parameter, data in zip(parameters, kept, strict=True):
                parameter.data = data

    def _trained(self, model: nn.Module) -> list[Tensor]:
        return [model.get_parameter(name) for name in self._names]

    def _averages(self) -> list[Tensor]:
        return [self.get_buffer(_buffer_name(name)) for name in self._names]


def _buffer_name(parameter_name: str) -> str:
    return parameter_name.replace(".", "/")
