"""What is seen in a picture of the drawn world: the things in it with their looks, its background and its word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kilonova.data.world.colours import COLOURS, lab
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.prompts import Detection
from kilonova.evals.canvas.attributes import Attributes
from kilonova.models.classifier.pictures import cut_out
from kilonova.studio.segmentation import Segment, Segmenter

HEADS = ("texture", "background", "word", "letters")
# How far, in CIELAB, a pixel may be from a named colour and still speak for it.
_TOLERANCE = 10.0
_LEAST_SCORE = 0.5
_LEAST_SHARE = 0.0015
_SAME = 0.6


@dataclass(frozen=True, eq=False)
class SeenThing:
    """One thing: its kind and colour, how likely each texture is, its mask bool `[H, W]` and its box.

    `box` is (left, top, right, bottom) as fractions of the picture's width and height.
    """

    kind: str
    colour: str
    textures: Mapping[str, float]
    mask: np.ndarray
    box: tuple[float, float, float, float]

    @property
    def texture(self) -> str:
        """The likeliest one."""
        return max(self.textures, key=lambda name: self.textures[name])

    @property
    def centre(self) -> tuple[float, float]:
        """That of the box."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True, eq=False)
class SeenPicture:
    """The things in a picture, and how likely each background, each word ("none" too) and colour of letters is."""

    things: tuple[SeenThing, ...]
    backgrounds: Mapping[str, float]
    words: Mapping[str, float]
    letters: Mapping[str, float]


class Recogniser:
    """Finds things with a segmenter, reads colours off their pixels, and asks a classifier for all else."""

    def __init__(self, segmenter: Segmenter, attributes: Attributes) -> None:
        self._segmenter, self._attributes = segmenter, attributes

    def look(self, picture: np.ndarray) -> SeenPicture:
        """What is seen in a picture uint8 `[H, W, 3]`."""
        segments = distinct(self._segmenter.instances(picture, list(KINDS)))
        textures = self._likely("texture", [cut_out(picture, segment.mask) for segment in segments])
        things = tuple(
            SeenThing(segment.name, thing_colour(picture, segment.mask), likely, segment.mask, _box(segment.mask))
            for segment, likely in zip(segments, textures, strict=True)
        )
        return SeenPicture(things, *(self._likely(name, [picture])[0] for name in HEADS[1:]))

    def _likely(self, name: str, pictures: list[np.ndarray]) -> list[Mapping[str, float]]:
        if not pictures:
            return []
        values = self._attributes.heads[name]
        rows = self._attributes.probabilities(name, pictures).tolist()
        return [dict(zip(values, row, strict=True)) for row in rows]


def detections(segmenter: Segmenter, picture: np.ndarray) -> list[Detection]:
    """The things in a picture uint8 `[H, W, 3]`, as GenEval's rules take them; boxes are fractions of the frame."""
    segments = distinct(segmenter.instances(picture, list(KINDS)))
    return [Detection(one.name, thing_colour(picture, one.mask), _box(one.mask)) for one in segments]


def distinct(segments: list[Segment]) -> list[Segment]:
    """The segments that are sure and large enough, each place named once, by the surest."""
    kept: list[Segment] = []
    for segment in sorted(segments, key=lambda one: -one.score):
        if segment.score < _LEAST_SCORE or segment.mask.mean() < _LEAST_SHARE:
            continue
        if all(_overlap(segment.mask, other.mask) < _SAME for other in kept):
            kept.append(segment)
    return kept


def thing_colour(picture: np.ndarray, mask: np.ndarray) -> str:
    """The one of `COLOURS` for which most pixels inside of a mask speak, nearer ones more (a normal kernel in CIELAB).

    Pixels at the border count only where little else is there. Tints, shades and accents lie far from every name's own
    colour, so that the colour of the thing itself decides.
    """
    from scipy.ndimage import binary_erosion

    inner = binary_erosion(mask)
    if inner.sum() >= 0.3 * mask.sum():
        mask = inner
    palette = lab(np.array(list(COLOURS.values())))
    distances = np.linalg.norm(lab(picture[mask][:, :3])[:, None] - palette, axis=-1)
    # Where no pixel is near any name, the nearest still wins.
    logits = -((distances / _TOLERANCE) ** 2)
    votes = np.exp(logits - min(0.0, float(logits.max()))).sum(0)
    return list(COLOURS)[int(votes.argmax())]


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union."""
    return float((first & second).sum() / max(1, (first | second).sum()))


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
