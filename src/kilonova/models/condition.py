"""What a picture is to follow beside its text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum

import torch
from torch import Tensor

from kilonova.core.errors import ConfigError


class ControlType(IntEnum):
    """What a control picture shows; `NONE` stands for a sample without one."""

    NONE = 0
    CANNY_EDGE = 1
    SEGMENTATION = 2


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Optional parts, each for a whole batch; members of a part come together, else ConfigError.

    **Inpainting**: `mask` `[B, 1, h, w]`, the share of each latent's pixels that is to be made, and `masked_latents`
    `[B, C, h, w]` of the picture with those pixels transparent, which count as far as they are kept
    (`data.pictures.masking`). A mask of ones is as good as none.
    **Control**: latents `control` `[B, C, h, w]` of a picture of the type `control_type` `[B]` (int64, `ControlType`),
    heeded as far as `control_strength` `[B]` in [0, 1] says; strength 0 or type `NONE` is as good as none.
    **Palette**: `palette` `[B, N, 3]`, colours in CIELAB, of which `palette_mask` `[B, N]` (bool) are there.
    **References**: latents `references` `[B, R, C, h, w]` of pictures to vary or to wear, of which `references_mask`
    `[B, R]` (bool) are there, heeded as far as `similarity` `[B]` in [0, 1] says.
    """

    masked_latents: Tensor | None = None
    mask: Tensor | None = None
    control: Tensor | None = None
    control_type: Tensor | None = None
    control_strength: Tensor | None = None
    palette: Tensor | None = None
    palette_mask: Tensor | None = None
    references: Tensor | None = None
    references_mask: Tensor | None = None
    similarity: Tensor | None = None

    def __post_init__(self) -> None:
        for part in _PARTS:
            absent = [name for name in part if getattr(self, name) is None]
            if absent and len(absent) < len(part):
                raise ConfigError(f"{absent[0]}: is missing; {', '.join(part)} come together")

    def map(self, function: Callable[[Tensor], Tensor]) -> Condition:
        """The condition with `function` applied to each tensor that is there, such as an index or a repetition."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return Condition(**{name: function(tensor) for name, tensor in tensors.items() if tensor is not None})

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Condition:
        """The condition on `device`, floating-point tensors in `dtype`."""
        return self.map(lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else None))


_PARTS = (
    ("masked_latents", "mask"),
    ("control", "control_type", "control_strength"),
    ("palette", "palette_mask"),
    ("references", "references_mask", "similarity"),
)
