"""Whether pictures follow what they were given beside words: colours, edges, regions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kilonova.data.pictures.edges import canny_edges
from kilonova.data.pictures.palette import dominant_colours
from kilonova.data.pictures.regions import paint_regions
from kilonova.data.pictures.things import region_numbers
from kilonova.data.world.captions import short_caption
from kilonova.data.world.chance import generator, shuffled, whole
from kilonova.data.world.colours import BACKGROUND_COLOURS, COLOURS
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.prompts import prompts
from kilonova.data.world.render import Rendered, render
from kilonova.data.world.sampling import SceneConfig, sample_scene
from kilonova.data.world.scene import Scene
from kilonova.evals.canvas.colour_difference import to_palette
from kilonova.evals.canvas.report import Score
from kilonova.evals.canvas.statistics import bootstrap_median
from kilonova.evals.canvas.study import Study
from kilonova.evals.metrics import bootstrap_mean
from kilonova.models.condition import ControlType
from kilonova.studio.segmentation import Segmenter
from kilonova.studio.tasks import ColorGuidedGeneration, Control, TextToImage

COLOURS_PART, EDGES_PART, REGIONS_PART = "colours", "edges", "regions"
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
_SEED = 50_000
_DOMINANT = 4
_TOLERANCE = 2


def palettes(count: int, seed: int) -> list[tuple[str, tuple[tuple[int, int, int], ...]]]:
    """Prompts that name one thing and no colour, each with two to five random colours."""
    known = [*COLOURS.values(), *BACKGROUND_COLOURS.values()]
    found = []
    for index in range(count):
        rng = generator((_SEED + seed, index))
        colours = tuple(shuffled(rng, known)[: whole(rng, 2, 5)])
        found.append((prompts("single_object", (_SEED + seed, index)).text, colours))
    return found


def measure_colours(study: Study) -> list[Score]:
    """The median CIEDE2000 of the four commonest colours of pictures to the nearest colour of their palette.

    The baseline is that of the same colours to the palette of another picture.
    """
    cases = palettes(study.limit, study.seed)
    found, others = [], []
    for index, (text, colours) in enumerate(study.track(COLOURS_PART, cases)):
        picture = study.draw(ColorGuidedGeneration(text=text, colors=colours), index)
        study.gallery.add(COLOURS_PART, text, np.concatenate((picture, swatches(colours, picture.shape[1]))))
        dominant = dominant_colours(picture, _DOMINANT)
        found.append(to_palette(dominant, np.array(colours, np.uint8)).tolist())
        others.append(to_palette(dominant, np.array(cases[index - 1][1], np.uint8)).tolist())
    return [
        Score.of(
            COLOURS_PART,
            "median CIEDE2000 to the palette, less is better",
            bootstrap_median(found, study.seed),
            len(cases),
            baselines={"another palette": round(float(np.median(np.concatenate(others))), 4)},
        )
    ]


def swatches(colours: tuple[tuple[int, int, int], ...], width: int, height: int = 14) -> np.ndarray:
    """Colours side by side, uint8 `[height, width, 3]`."""
    columns = np.arange(width) * len(colours) // width
    return np.repeat(np.array(colours, np.uint8)[columns][None], height, axis=0)


def edge_f1(found: np.ndarray, wanted: np.ndarray, tolerance: int = _TOLERANCE) -> float:
    """The F-measure of edges, bool `[H, W]`, an edge being right within `tolerance` pixels of one on the other side.

    Precision is over what was found, recall over what was wanted; nothing found where nothing was wanted is 1.
    """
    if not found.any() and not wanted.any():
        return 1.0
    if not found.any() or not wanted.any():
        return 0.0
    from scipy.ndimage import distance_transform_edt

    precision = float((distance_transform_edt(~wanted)[found] <= tolerance).mean())
    recall = float((distance_transform_edt(~found)[wanted] <= tolerance).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def measure_edges(study: Study) -> list[Score]:
    """The F-measure of a picture's Canny edges against those of its control, at several strengths and without."""
    cases = control_scenes(max(1, study.limit // len(STRENGTHS)), study.size, study.seed)
    scores = []
    for strength in (0.0, *STRENGTHS):
        values = []
        for index, (text, _, drawn) in enumerate(study.track(f"{EDGES_PART} at {strength}", cases)):
            control = Control(picture=drawn.image[..., :3], type=ControlType.CANNY_EDGE, strength=strength)
            task = TextToImage(text=text, control=control if strength else None)
            picture = study.draw(task, index)
            wanted = canny_edges(drawn.image[..., :3])
            study.gallery.add(EDGES_PART, f"control: {text}", wanted)
            study.gallery.add(EDGES_PART, f"strength {strength}", picture)
            values.append(edge_f1(canny_edges(picture)[..., 0] > 0, wanted[..., 0] > 0))
        scores.append(
            Score.of(EDGES_PART, f"F1 at strength {strength}", bootstrap_mean(values, study.seed), len(values))
        )
    without = scores.pop(0).value
    return [replace(score, baselines={"no control": without}) for score in scores]


def measure_regions(study: Study) -> list[Score]:
    """The mean intersection over union of kinds of things, as a segmenter sees them, with those of the control.

    The ceiling is that of the scenes themselves; the baseline is drawn without control.
    """
    assert study.segmenter is not None
    cases = control_scenes(max(1, study.limit // 2), study.size, study.seed)
    followed, free, ceiling = [], [], []
    for index, (text, scene, drawn) in enumerate(study.track(REGIONS_PART, cases)):
        regions = paint_regions(region_numbers(drawn))
        control = Control(picture=regions, type=ControlType.SEGMENTATION, strength=1.0)
        picture = study.draw(TextToImage(text=text, control=control), index)
        study.gallery.add(REGIONS_PART, f"control: {text}", regions)
        study.gallery.add(REGIONS_PART, "strength 1.0", picture)
        followed.append(kind_overlap(study.segmenter, picture, scene, drawn))
        free.append(kind_overlap(study.segmenter, study.draw(TextToImage(text=text), index), scene, drawn))
        ceiling.append(kind_overlap(study.segmenter, drawn.image[..., :3], scene, drawn))
    return [
        Score.of(
            REGIONS_PART,
            "mean IoU of kinds at strength 1.0",
            bootstrap_mean(followed, study.seed),
            len(followed),
            ceiling=round(float(np.mean(ceiling)), 4),
            baselines={"no control": round(float(np.mean(free)), 4)},
        )
    ]


def kind_overlap(segmenter: Segmenter, picture: np.ndarray, scene: Scene, drawn: Rendered) -> float:
    """The mean over the kinds in a scene of the intersection over union of where they are and where they are seen."""
    names = [kind for kind in KINDS if any(thing.kind == kind for thing in scene.objects)]
    seen = segmenter.semantic(picture, names)
    values = []
    for number, name in enumerate(names):
        alike = [index for index, thing in enumerate(scene.objects) if thing.kind == name]
        wanted, found = drawn.masks[alike].any(0), seen == number
        values.append((wanted & found).sum() / max(1, (wanted | found).sum()))
    return float(np.mean(values))


def control_scenes(count: int, size: int, seed: int) -> list[tuple[str, Scene, Rendered]]:
    """Held-out scenes of up to three things without words, with their captions, drawn at `size` x `size` pixels."""
    config = SceneConfig(task="free", max_objects=3, split="held_out")
    found = []
    for index in range(count):
        scene = sample_scene((_SEED + seed, index), config)
        text = short_caption(scene, generator((_SEED + seed, index))).text
        found.append((text, scene, render(scene, size)))
    return found
