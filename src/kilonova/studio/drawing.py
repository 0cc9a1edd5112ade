"""What a model is to draw, whatever task it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from kilonova.data.pictures.masking import hide, latent_mask
from kilonova.data.pictures.palette import to_lab
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.condition import Condition
from kilonova.studio.latents import encode
from kilonova.studio.sizes import Size
from kilonova.studio.tasks import Control


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Words and what goes with them, all pictures at the native `size` (width, height).

    `control` shows edges or regions. `references` are uint8 `[height, width, 4]`, heeded as far as `similarity` says.
    Of `source` uint8 `[height, width, 3]` what `mask` bool `[height, width]` covers is made anew.
    """

    size: Size
    text: str
    negative_text: str = ""
    control: Control | None = None
    colors: tuple[tuple[int, int, int], ...] = ()
    references: tuple[np.ndarray, ...] = ()
    similarity: float = 0.0
    source: np.ndarray | None = None
    mask: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A drawing and what is done with each picture of it: uint8 `[h, w, 3]` of native size in, the answer's out.

    `mask` bool `[H, W]` is what the answer makes anew.
    """

    drawing: Drawing
    finish: Callable[[np.ndarray], np.ndarray]
    mask: np.ndarray | None = None


def to_condition(drawing: Drawing, autoencoder: ImageAutoencoder) -> Condition | None:
    """What the transformer is given beside the text, for one sample; None where there is nothing."""
    parts: dict[str, torch.Tensor] = {}
    if drawing.source is not None and drawing.mask is not None:
        alpha = np.full((*drawing.mask.shape, 1), 255, np.uint8)
        hidden = hide(np.concatenate((drawing.source, alpha), axis=-1), drawing.mask)
        parts["masked_latents"] = encode(autoencoder, hidden[None])
        parts["mask"] = torch.from_numpy(latent_mask(drawing.mask))[None, None]
    if drawing.control is not None and drawing.control.strength > 0:
        parts["control"] = encode(autoencoder, drawing.control.picture[None])
        parts["control_type"] = torch.tensor([int(drawing.control.type)])
        parts["control_strength"] = torch.tensor([drawing.control.strength])
    if drawing.colors:
        lab = to_lab(np.array(drawing.colors, np.uint8))
        parts["palette"] = torch.from_numpy(lab)[None]
        parts["palette_mask"] = torch.ones(1, len(lab), dtype=torch.bool)
    if drawing.references:
        parts["references"] = encode(autoencoder, np.stack(drawing.references))[None]
        parts["references_mask"] = torch.ones(1, len(drawing.references), dtype=torch.bool)
        parts["similarity"] = torch.tensor([drawing.similarity])
    if not parts:
        return None
    return Condition(**parts).to(next(autoencoder.parameters()).device)
