"""Tasks that make a new picture: from words, in given colours, like other pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from kilonova.data.pictures.edges import canny_edges
from kilonova.data.pictures.placement import over_colour, place
from kilonova.models.condition import ControlType
from kilonova.studio.drawing import Drawing, Plan
from kilonova.studio.prompts import with_style
from kilonova.studio.settings import SamplingSettings
from kilonova.studio.sizes import Size, behind, nearest_size, resize, shown_box
from kilonova.studio.tasks import ColorGuidedGeneration, Control, ImageVariation, TextToImage

# For a colour-guided picture, which is to keep what the reference shows and not how.
_REFERENCE_SIMILARITY = 0.7
_WHITE = (255, 255, 255)


def plan_generation(
    task: TextToImage | ColorGuidedGeneration | ImageVariation, size: Size | None, settings: SamplingSettings
) -> Plan:
    """A new picture of `size` (width, height), None for the first of the model's own.

    It is drawn at the native size nearest in aspect, and brought to its own by a little stretching, or else cut.
    """
    size = size or settings.sizes[0]
    native = nearest_size(*size, settings.sizes)
    if isinstance(task, TextToImage):
        drawing = Drawing(
            size=native,
            text=with_style(task.text, task.style, settings.styles),
            negative_text=task.negative_text,
            control=None if task.control is None else fit_control(task.control, native, size),
        )
    elif isinstance(task, ColorGuidedGeneration):
        drawing = Drawing(
            size=native,
            text=task.text,
            negative_text=task.negative_text,
            colors=task.colors,
            references=() if task.reference is None else (fit_reference(task.reference, native),),
            similarity=_REFERENCE_SIMILARITY,
        )
    else:
        drawing = Drawing(
            size=native,
            text=task.text,
            negative_text=task.negative_text,
            references=tuple(fit_reference(image, native) for image in task.images),
            similarity=task.similarity,
        )
    box = shown_box(native, size)
    return Plan(drawing=drawing, finish=lambda picture: resize(picture, size, box))


def fit_control(control: Control, native: Size, shown: Size) -> Control:
    """`control` with what the model is shown: edges of its picture, or the picture's regions as they are.

    They lie where a picture drawn at `native` size has them that is shown at the size `shown`.
    """
    picture = behind(control.picture, native, shown)
    if control.type == ControlType.CANNY_EDGE:
        picture = canny_edges(picture)
    return replace(control, picture=picture)


def fit_reference(picture: np.ndarray, native: Size) -> np.ndarray:
    """`picture` uint8 `[H, W, 3]` whole in the middle of a white one of `native` size, uint8 `[h, w, 4]`."""
    return over_colour(place(Image.fromarray(picture).convert("RGBA"), *native), _WHITE)
