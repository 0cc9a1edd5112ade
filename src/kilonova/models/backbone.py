"""What every network that turns noise into latents takes and gives."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from kilonova.core.errors import ConfigError
from kilonova.models.condition import Condition

Prediction = Literal["v", "x"]


class Backbone(Protocol):
    """A network of the path `(1 - t) data + t noise` that predicts `noise - data` ("v") or the data ("x").

    `latents` is `[B, C, h, w]`, `timestep` `[B]` in [0, 1] with 0 for data, `text_states` `[B, T, text_hidden]`, and
    `text_mask` `[B, T]` bool, True for a token (None: all are); T may be 0. `step_size` `[B]`, for models that take
    one, is how far along the path the answer is to carry, 0 for its direction at this very point (arXiv 2410.12557);
    None stands for 0. The answer has the shape of `latents`.
    """

    def __call__(
        self,
        latents: Tensor,
        timestep: Tensor,
        text_states: Tensor,
        text_mask: Tensor | None,
        condition: Condition | None = None,
        step_size: Tensor | None = None,
    ) -> Tensor: ...


def check_latents(latents: Tensor, in_channels: int, multiple: int) -> None:
    """ConfigError for `latents` of other than `in_channels`, or of sides that are no multiple of `multiple`."""
    _, channels, height, width = latents.shape
    if channels != in_channels:
        raise ConfigError(f"latents: {channels} channels, not in_channels {in_channels}")
    if height % multiple or width % multiple:
        raise ConfigError(f"latents: {height} x {width} is not a multiple of patch_size {multiple}")


def resolve_step_size(step_size: Tensor | None, timestep: Tensor, step_size_embeds: bool) -> Tensor | None:
    """The step size a model is to embed, None for one that takes none; ConfigError where it is given in vain."""
    if step_size_embeds:
        return torch.zeros_like(timestep) if step_size is None else step_size
    if step_size is not None:
        raise ConfigError("step_size: this model takes none; step_size_embeds is false in its configuration")
    return None
