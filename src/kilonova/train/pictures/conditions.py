"""From examples to what a network is given: pictures to encode, and a `Condition` made of their latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from kilonova.data.pictures.examples import Example
from kilonova.data.pictures.masking import hide, latent_mask
from kilonova.data.pictures.palette import to_lab
from kilonova.models.condition import Condition, ControlType

# Parameters that a batch without conditions leaves alone, as their networks name them.
_CONDITIONAL = ("condition_tokens.", "inpaint_", "patch_embed.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """An example whose pictures are to be encoded or, in a cache, have been.

    `pictures` are uint8 `[P, H, W, 4]` or latents `[P, C, h, w]`: what is to be learnt, then, where there are such,
    what is kept of it, the control, and the `num_references` references. `mask` is float32 `[h, w]`, `palette` CIELAB
    float32 `[N, 3]`.
    """

    pictures: np.ndarray
    caption: str
    needs_caption: bool = False
    mask: np.ndarray | None = None
    control_type: int = ControlType.NONE
    control_strength: float = 0.0
    num_references: int = 0
    similarity: float = 0.0
    palette: np.ndarray

    @property
    def parts(self) -> tuple[bool, int, bool]:
        """What makes its sequence of tokens longer: a control, references (one, or more) and a palette."""
        return self.control_type != ControlType.NONE, min(self.num_references, 2), len(self.palette) > 0


def prepare(example: Example) -> Prepared:
    """The pictures of an example together, and its numbers."""
    pictures = [example.picture]
    if example.mask is not None:
        pictures.append(hide(example.picture, example.mask))
    if example.control is not None:
        opaque = np.full_like(example.control[..., :1], 255)
        pictures.append(np.concatenate((example.control, opaque), axis=-1))
    return Prepared(
        pictures=np.stack([*pictures, *example.references]),
        caption=example.caption,
        needs_caption=example.needs_caption,
        mask=None if example.mask is None else latent_mask(example.mask),
        control_type=ControlType[example.control_type],
        control_strength=example.control_strength,
        num_references=len(example.references),
        similarity=example.similarity,
        palette=to_lab(example.palette),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What a batch of examples is learnt from, in the order of the examples.

    `pictures` are those of all of them, float32 `[P, 4, H, W]` in [-1, 1], or latents `[P, C, h, w]` if `encoded`. The
    rest are rows of it, int64, -1 for none (`targets`, `kept`, `controls` `[B]`, `references` `[B, R]`), and the
    members of `Condition` that are no pictures.
    """

    pictures: Tensor
    encoded: bool
    targets: Tensor
    kept: Tensor
    controls: Tensor
    references: Tensor
    mask: Tensor
    control_type: Tensor
    control_strength: Tensor
    similarity: Tensor
    palette: Tensor
    palette_mask: Tensor

    def condition(self, latents: Tensor) -> Condition | None:
        """The condition in the `latents` `[P, C, h, w]` of `pictures`, with the parts that any example has."""
        device = latents.device
        members: dict[str, Tensor] = {}
        if bool((self.kept >= 0).any()):
            members |= {"masked_latents": _rows(latents, self.kept), "mask": self.mask.to(device)}
        if bool((self.controls >= 0).any()):
            members |= {
                "control": _rows(latents, self.controls),
                "control_type": self.control_type.to(device),
                "control_strength": self.control_strength.to(device),
            }
        if self.references.shape[1]:
            members |= {
                "references": _rows(latents, self.references),
                "references_mask": (self.references >= 0).to(device),
                "similarity": self.similarity.to(device),
            }
        if self.palette.shape[1]:
            members |= {"palette": self.palette.to(device), "palette_mask": self.palette_mask.to(device)}
        return Condition(**members) if members else None


def collate(examples: Sequence[Prepared]) -> Given:
    """A batch of examples of one size, encoded all or none."""
    encoded = examples[0].pictures.dtype != np.uint8
    pictures = torch.from_numpy(np.concatenate([example.pictures for example in examples]))
    if not encoded:
        pictures = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    height, width = (side // (1 if encoded else 8) for side in pictures.shape[-2:])
    count = len(examples)
    num_references = max(example.num_references for example in examples)
    num_colours = max(len(example.palette) for example in examples)
    rows = {name: torch.full((count,), -1) for name in ("targets", "kept", "controls")}
    references = torch.full((count, num_references), -1)
    mask = torch.ones(count, 1, height, width)
    palette = torch.zeros(count, num_colours, 3)
    palette_mask = torch.zeros(count, num_colours, dtype=torch.bool)
    row = 0
    for index, example in enumerate(examples):
        first = row
        rows["targets"][index] = row
        if example.mask is not None:
            row += 1
            rows["kept"][index] = row
            mask[index, 0] = torch.from_numpy(example.mask)
        if example.control_type != ControlType.NONE:
            row += 1
            rows["controls"][index] = row
        for number in range(example.num_references):
            row += 1
            references[index, number] = row
        row = first + len(example.pictures)
        palette[index, : len(example.palette)] = torch.from_numpy(example.palette)
        palette_mask[index, : len(example.palette)] = True
    return Given(
        pictures=pictures.float(),
        encoded=encoded,
        **rows,
        references=references,
        mask=mask,
        control_type=torch.tensor([example.control_type for example in examples]),
        control_strength=torch.tensor([example.control_strength for example in examples]),
        similarity=torch.tensor([example.similarity for example in examples]),
        palette=palette,
        palette_mask=palette_mask,
    )


def untouched(transformer: nn.Module) -> Tensor:
    """Zero, made of all that a batch without conditions leaves alone.

    Added to a loss, it gives those parameters gradients on every rank, as a step must on all or none.
    """
    parameters = [p for name, p in transformer.named_parameters() if name.startswith(_CONDITIONAL)]
    return 0.0 * torch.stack([parameter.sum() for parameter in parameters]).sum()


def _rows(latents: Tensor, rows: Tensor) -> Tensor:
    """`latents` `[P, ...]` of `rows` `[...]`, zero where there is none."""
    rows = rows.to(latents.device)
    found = latents[rows.clamp(min=0)]
    return found * (rows >= 0).view(*rows.shape, *[1] * (latents.ndim - 1))
