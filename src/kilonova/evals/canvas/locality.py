"""Whether edits leave alone what they are to leave alone, and change what they are to change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kilonova.data.world.chance import generator, pick
from kilonova.data.world.colours import COLOURS
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.render import render
from kilonova.data.world.sampling import SceneConfig, sample_scene
from kilonova.data.world.wording import with_article
from kilonova.evals.canvas.colour_difference import colour_difference
from kilonova.evals.canvas.recogniser import detections
from kilonova.evals.canvas.report import Score
from kilonova.evals.canvas.study import Study
from kilonova.evals.metrics import accuracy, bootstrap_mean
from kilonova.studio.segmentation import Segmenter
from kilonova.studio.tasks import Inpainting, Outpainting

PART = "edits"
_SEED = 40_000
_TASKS = ("two_objects", "colour_binding", "single_object")
# Sides of edited pictures, as shares of the native one: of its own, and of no bucket's.
_SHAPES = ((1.0, 1.0), (1.53, 1.19))
_GROWTH = 0.03


@dataclass(frozen=True, eq=False)
class Edit:
    """A picture uint8 `[H, W, 3]`, the part of it to replace, bool `[H, W]`, and the kind and colour to put there."""

    picture: np.ndarray
    mask: np.ndarray
    kind: str
    colour: str

    @property
    def text(self) -> str:
        """What is to be there."""
        return with_article(f"{self.colour} {self.kind}")


def edits(count: int, size: int, seed: int) -> list[Edit]:
    """Scenes of which one thing, with a little around it, is to become another of another kind and colour."""
    from scipy.ndimage import binary_dilation

    found: list[Edit] = []
    index = 0
    while len(found) < count:
        scene = sample_scene((_SEED + seed, index), SceneConfig(task=_TASKS[index % len(_TASKS)], split="held_out"))
        rng = generator((_SEED + seed, index))
        width, height = (round(share * size) for share in _SHAPES[index // len(_TASKS) % len(_SHAPES)])
        index += 1
        drawn = render(scene, (width, height))
        if drawn.masks[0].mean() < 0.01:
            continue
        mask = binary_dilation(drawn.masks[0], iterations=max(1, round(_GROWTH * size)))
        kind = pick(rng, [name for name in KINDS if all(name != thing.kind for thing in scene.objects)])
        colour = pick(rng, [name for name in COLOURS if name != scene.objects[0].colour])
        found.append(Edit(drawn.image[..., :3], mask, kind, colour))
    return found


def measure(study: Study) -> list[Score]:
    """Shares of pictures of which nothing but the masked part changed, how far that part changed, and whether the thing
    asked for is seen there (with a segmenter)."""
    cases = edits(study.limit, study.size, study.seed)
    kept, changes, present = [], [], []
    for index, edit in enumerate(study.track(PART, cases)):
        picture = study.draw(Inpainting(image=edit.picture, mask=edit.mask, text=edit.text), index)
        study.gallery.add(PART, "before", edit.picture)
        study.gallery.add(PART, edit.text, picture)
        kept.append(unchanged(edit.picture, picture, ~edit.mask))
        if picture.shape == edit.picture.shape:
            changes.append(float(colour_difference(edit.picture[edit.mask], picture[edit.mask]).mean()))
        if study.segmenter is not None:
            present.append(_seen(study.segmenter, edit, picture))
    surroundings = [
        Outpainting(image=edit.picture, mask=~edit.mask, mode="PRECISE", text=f"{edit.text} in a meadow")
        for edit in cases[: max(1, study.limit // 4)]
    ]
    kept_inside = [
        unchanged(edit.picture, study.draw(task, index), edit.mask)
        for index, (edit, task) in enumerate(zip(cases, study.track(f"{PART} around", surroundings), strict=False))
    ]
    scores = [
        Score.of(PART, "INPAINTING: nothing changed outside the mask", accuracy(kept), len(kept)),
        Score.of(PART, "OUTPAINTING, PRECISE: nothing kept changed", accuracy(kept_inside), len(kept_inside)),
    ]
    if changes:
        change = bootstrap_mean(changes, study.seed)
        scores.append(Score.of(PART, "mean CIEDE2000 of the change inside the mask", change, len(changes)))
    if present:
        scores.append(Score.of(PART, "the kind and colour asked for is seen there", accuracy(present), len(present)))
    return scores


def unchanged(before: np.ndarray, after: np.ndarray, where: np.ndarray) -> bool:
    """Whether two pictures are the same to the bit where a mask, bool `[H, W]`, says."""
    return before.shape == after.shape and bool(np.array_equal(before[where], after[where]))


def _seen(segmenter: Segmenter, edit: Edit, picture: np.ndarray) -> bool:
    """Whether a thing of the kind and colour has its middle in the masked part's box."""
    rows, columns = np.flatnonzero(edit.mask.any(1)), np.flatnonzero(edit.mask.any(0))
    height, width = edit.mask.shape
    for one in detections(segmenter, picture):
        x, y = (one.box[0] + one.box[2]) / 2 * width, (one.box[1] + one.box[3]) / 2 * height
        inside = columns[0] <= x <= columns[-1] and rows[0] <= y <= rows[-1]
        if inside and (one.kind, one.colour) == (edit.kind, edit.colour):
            return True
    return False
