"""How pictures are sampled from a model: what differs by model and not by code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from kilonova.core.config import parse_config
from kilonova.core.errors import ConfigError
from kilonova.studio.samplers import SamplerName


@dataclass(frozen=True, kw_only=True)
class StepCounts:
    """How many steps each quality takes."""

    standard: int = 25
    premium: int = 50


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """What `scheduler/scheduler_config.json` of a folder says.

    `base_tokens` is the number of latents of a picture for which times are not shifted, `sizes` the widths and heights
    the model draws at, in pixels. `styles` gives for the name of a style its words, which follow the prompt after a
    comma, or surround it where they hold "{text}". Guidance is given at times from `guidance_start` to `guidance_end`
    (0 is data), with the `guidance_rescale` of `Guidance`. `few_step` says that the transformer takes step sizes; its
    steps are then Euler's and even, and best a power of 2. Unknown keys and impossible values are a ConfigError.
    """

    base_tokens: int
    sizes: tuple[tuple[int, int], ...] = ((128, 128),)
    styles: dict[str, str] = field(default_factory=dict)
    num_inference_steps: StepCounts = field(default_factory=StepCounts)
    sampler: SamplerName = "dpm++2m"
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    guidance_rescale: float = 0.0
    few_step: bool = False

    def __post_init__(self) -> None:
        if self.base_tokens < 1:
            raise ConfigError(f"base_tokens: {self.base_tokens} is less than 1")
        if not self.sizes or any(side < 16 or side % 16 for size in self.sizes for side in size):
            raise ConfigError(f"sizes: {list(self.sizes)}: pairs of multiples of 16 are expected")
        if min(self.num_inference_steps.standard, self.num_inference_steps.premium) < 1:
            raise ConfigError(f"num_inference_steps: {self.num_inference_steps}: each must be at least 1")

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], source: str) -> Self:
        """Read a parsed file named `source`; keys that begin with an underscore are not ours and are passed over."""
        return parse_config(cls, {key: value for key, value in mapping.items() if not key.startswith("_")}, source)
