"""Classifier-free guidance, with its limits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kilonova.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How far, and when, a sample is pushed from what the model makes without the prompt towards what it makes with it.

    `cfg_scale` 1 stands for no push (arXiv 2207.12598, in the convention of diffusers). It is given only at times from
    `start` to `end`, 0 being data (arXiv 2404.07724), and `rescale` is the share to which the
    contrast it adds is taken back (arXiv 2305.08891, equations 15 and 16). Raises ConfigError for impossible values.
    """

    cfg_scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if not self.cfg_scale >= 1:
            raise ConfigError(f"cfg_scale: {self.cfg_scale} is less than 1")
        if not self.start < self.end:
            raise ConfigError(f"start: {self.start} is not less than end {self.end}")
        if not 0 <= self.rescale <= 1:
            raise ConfigError(f"rescale: {self.rescale} is not between 0 and 1")

    def is_active(self, timestep: float) -> bool:
        """Whether the model must be asked without the prompt too."""
        return self.cfg_scale > 1 and self.start <= timestep <= self.end

    def combine(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """The guided velocity of two `[B, ...]`."""
        guided = unconditional + self.cfg_scale * (conditional - unconditional)
        if not self.rescale:
            return guided
        axes = tuple(range(1, guided.ndim))
        contrast = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True).clamp(min=1e-8)
        return guided * (1 + self.rescale * (contrast - 1))
