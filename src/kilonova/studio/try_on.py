"""Virtual try-on: what a reference shows, in the place of what a picture shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kilonova.core.errors import InvalidRequest
from kilonova.studio.described import boxed, find, loosened, require_segmenter, seen
from kilonova.studio.drawing import Plan
from kilonova.studio.editing import bring_in, draw_region
from kilonova.studio.garments import BODY_PARTS, caption, covered
from kilonova.studio.generation import fit_reference
from kilonova.studio.regions import around, whole
from kilonova.studio.segmentation import Segmenter
from kilonova.studio.settings import SamplingSettings
from kilonova.studio.tasks import GarmentMask, PromptMask, VirtualTryOn

# Of the mask's longer side, in a tight view of it.
_TIGHT_MARGIN = 0.1


def plan_try_on(task: VirtualTryOn, segmenter: Segmenter | None, settings: SamplingSettings) -> Plan:
    """The mask drawn after the reference, with the whole picture in view or, `DETAILED`, what is close around it."""
    mask = try_on_mask(task, segmenter)
    if task.merge_style == "DETAILED":
        region = around(mask, settings.sizes, _TIGHT_MARGIN)
    else:
        region = whole(task.source, settings.sizes)
    drawing = replace(
        draw_region(task.source, mask, region, text=_text(task)),
        references=(fit_reference(task.reference, region.native),),
        similarity=1.0,
    )
    matched = task.merge_style == "SEAMLESS"
    return Plan(
        drawing=drawing,
        finish=lambda drawn: bring_in(task.source, mask, region, drawing, drawn, matched=matched),
        mask=mask,
    )


def try_on_mask(task: VirtualTryOn, segmenter: Segmenter | None) -> np.ndarray:
    """What is made anew, bool `[H, W]`, without the parts of the body that are preserved.

    The `DEFAULT` shape of a garment's mask is a box, as the new one may be longer or wider than the old; that of a
    described thing is its contour. No garment covers the face. InvalidRequest where nothing is found, or nothing is
    left.
    """
    preserved = set(task.preserve)
    if isinstance(task.mask, GarmentMask):
        preserved.add("face")
        found = find(segmenter, task.source, covered(task.mask))
        mask = loosened(found) if task.mask.shape == "CONTOUR" else boxed(found)
    elif isinstance(task.mask, PromptMask):
        found = find(segmenter, task.source, [task.mask.prompt])
        mask = boxed(found) if task.mask.shape == "BOUNDING_BOX" else loosened(found)
    else:
        mask = task.mask
    for phrase in sorted({phrase for part in preserved for phrase in BODY_PARTS[part]}):
        mask = mask & ~seen(require_segmenter(segmenter), task.source, phrase)
    if not mask.any():
        raise InvalidRequest("the mask selects no pixel of the picture that is not preserved", field="mask")
    return mask


def _text(task: VirtualTryOn) -> str:
    if isinstance(task.mask, GarmentMask):
        return caption(task.mask)
    return task.mask.prompt if isinstance(task.mask, PromptMask) else ""
