"""Tasks that make a part of a picture anew: inpainting, outpainting."""

from __future__ import annotations

import numpy as np

from kilonova.core.errors import InvalidRequest
from kilonova.studio.compositing import composite, feather, feather_outwards, feather_width, match_border
from kilonova.studio.described import find, loosened
from kilonova.studio.drawing import Drawing, Plan
from kilonova.studio.regions import Region, around, whole
from kilonova.studio.segmentation import Segmenter
from kilonova.studio.settings import SamplingSettings
from kilonova.studio.sizes import resize, resize_mask
from kilonova.studio.tasks import Inpainting, Outpainting

# Of the picture's shorter side: so far into what is kept the surroundings blend, and the most pixels for it.
_BLEND = 0.02
_MAX_BLEND = 12.0


def plan_inpainting(task: Inpainting, segmenter: Segmenter | None, settings: SamplingSettings) -> Plan:
    """The surroundings of the mask drawn at full native size, and brought in with a border softened inside the mask.

    Without words the model continues what lies around the mask, and its colours are carried over to those at the
    border.
    """
    mask = task.mask
    if isinstance(mask, str):
        mask = loosened(find(segmenter, task.image, [mask]))
    region = around(mask, settings.sizes)
    drawing = draw_region(task.image, mask, region, text=task.text, negative_text=task.negative_text)
    return Plan(
        drawing=drawing,
        finish=lambda drawn: bring_in(task.image, mask, region, drawing, drawn, matched=not task.text),
        mask=mask,
    )


def plan_outpainting(task: Outpainting, segmenter: Segmenter | None, settings: SamplingSettings) -> Plan:
    """The whole picture drawn; `PRECISE` takes what the mask covers, `DEFAULT` fades out beyond it."""
    mask = ~find(segmenter, task.image, [task.mask]) if isinstance(task.mask, str) else task.mask
    if not mask.any():
        raise InvalidRequest("the mask selects no pixel of the picture", field="mask")
    region = whole(task.image, settings.sizes)
    size = (region.width, region.height)
    opacity = mask.astype(np.float32)
    if task.mode == "DEFAULT":
        opacity = feather_outwards(mask, min(_BLEND * min(size), _MAX_BLEND))
    return Plan(
        drawing=draw_region(task.image, mask, region, text=task.text, negative_text=task.negative_text),
        finish=lambda drawn: composite(task.image, resize(drawn, size), opacity),
        mask=mask,
    )


def draw_region(image: np.ndarray, mask: np.ndarray, region: Region, *, text: str, negative_text: str = "") -> Drawing:
    """What is in `mask` of a region of `image`, to be drawn at the region's native size."""
    return Drawing(
        size=region.native,
        text=text,
        negative_text=negative_text,
        source=resize(region.cut(image), region.native),
        mask=resize_mask(region.cut(mask), region.native),
    )


def bring_in(
    image: np.ndarray, mask: np.ndarray, region: Region, drawing: Drawing, drawn: np.ndarray, *, matched: bool
) -> np.ndarray:
    """`image` with what was `drawn` of a region in the pixels of `mask`, those at its border mixed with the old ones.

    `matched` carries the colours of the drawn part over to those of the picture around it.
    """
    if matched and drawing.source is not None and drawing.mask is not None:
        drawn = match_border(drawing.source, drawn, drawing.mask)
    result = image.copy()
    part, inside = region.cut(result), region.cut(mask)
    opacity = feather(inside, feather_width(inside))
    part[:] = composite(part, resize(drawn, (region.width, region.height)), opacity)
    return result
