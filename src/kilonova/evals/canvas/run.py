"""Measures a model that makes pictures, part by part."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import kilonova
from kilonova.core.device import choose_device
from kilonova.core.errors import InvalidRequest, nearest
from kilonova.evals.canvas import adherence, faithfulness, fidelity, geneval, iconography, locality
from kilonova.evals.canvas.attributes import NetworkAttributes
from kilonova.evals.canvas.icons import IconSet
from kilonova.evals.canvas.report import Report, Score
from kilonova.evals.canvas.study import Study
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.components import INDEX_FILE, load_component
from kilonova.models.shards import read_json
from kilonova.studio.loading import load_canvas
from kilonova.studio.mask_former import MaskFormer


@dataclass(frozen=True)
class Part:
    """One thing that is measured, and which fields of a `Study` it needs."""

    measure: Callable[[Study], list[Score]]
    needs: tuple[str, ...] = ()


PARTS: dict[str, Part] = {
    faithfulness.PART: Part(faithfulness.measure, ("segmenter", "attributes")),
    iconography.TIFA: Part(iconography.measure_faithfulness, ("icons", "attributes")),
    geneval.PART: Part(geneval.measure, ("segmenter",)),
    iconography.STYLE: Part(iconography.measure_style, ("icons", "attributes")),
    iconography.DISTANCE: Part(iconography.measure_distance, ("icons", "attributes")),
    fidelity.PART: Part(fidelity.measure, ("autoencoder",)),
    locality.PART: Part(locality.measure),
    adherence.COLOURS_PART: Part(adherence.measure_colours),
    adherence.EDGES_PART: Part(adherence.measure_edges),
    adherence.REGIONS_PART: Part(adherence.measure_regions, ("segmenter",)),
}
_LACKING = {
    "segmenter": "needs a segmenter, which the model's folder lacks (--segmenter FOLDER)",
    "attributes": "needs a classifier (train canvas/classifier, then --classifier FOLDER)",
    "icons": "needs pictures of files (--data FOLDER)",
    "autoencoder": "needs an autoencoder of our own",
}


def choose_parts(only: Sequence[str]) -> list[str]:
    """The names of `PARTS` asked for, all for none; InvalidRequest for an unknown one."""
    for name in only:
        if name not in PARTS:
            raise InvalidRequest(f"only: {name!r}: {nearest(name, PARTS)}", field="only")
    return [name for name in PARTS if not only or name in only]


def measure(study: Study, report: Report, only: Sequence[str] = ()) -> Report:
    """Fill a report with the scores of the parts asked for, or with why they are left out."""
    start = time.perf_counter()
    for name in choose_parts(only):
        lacking = [_LACKING[need] for need in PARTS[name].needs if getattr(study, need) is None]
        if lacking:
            report.left_out[name] = "; ".join(lacking)
        else:
            report.scores += PARTS[name].measure(study)
    report.seconds = round(time.perf_counter() - start, 1)
    return report


def evaluate(
    directory: str | Path,
    *,
    data: str | Path | None = None,
    classifier: str | Path | None = None,
    segmenter: str | Path | None = None,
    only: Sequence[str] = (),
    limit: int = 100,
    seed: int = 0,
    size: int | None = None,
    cfg_scale: float = 6.5,
    num_inference_steps: int | None = None,
    device: str = "auto",
    output: Path | None = None,
) -> Report:
    """Measure the model in `directory`; pictures and a sheet of each part go to the folder `output`, if given.

    `data` holds image/emoji_captions.parquet; `classifier` is what `kilonova train canvas/classifier` left; `segmenter`
    looks at pictures in place of the one in the model's folder. `size` is the side of new pictures in pixels, the
    model's own unless given. Raises InvalidRequest for an unknown part, and as loading the parts does.
    """
    choose_parts(only)
    place = choose_device(device)
    canvas = load_canvas(directory, place)
    looking = canvas.segmenter if segmenter is None else MaskFormer.load(segmenter, place)
    side = size or min(canvas.settings.sizes[0])
    study = Study(
        canvas=canvas,
        size=side,
        limit=limit,
        seed=seed,
        cfg_scale=cfg_scale,
        num_inference_steps=num_inference_steps,
        segmenter=looking,
        attributes=None if classifier is None else NetworkAttributes.load(classifier, place),
        icons=None if data is None else IconSet(data, side, seed, limit),
        autoencoder=_own_autoencoder(Path(directory), place),
    )
    report = Report(
        model=str(directory),
        version=kilonova.__version__,
        limit=limit,
        seed=seed,
        size=side,
        cfg_scale=cfg_scale,
        num_inference_steps=num_inference_steps,
        device=str(place),
        classifier=str(classifier or ""),
        segmenter=str(segmenter or ("" if looking is None else Path(directory) / "segmenter")),
    )
    measure(study, report, only)
    if output is not None:
        study.gallery.write(output)
    return report


def _own_autoencoder(directory: Path, device: torch.device) -> ImageAutoencoder | None:
    """The autoencoder of a folder, None where it is another library's."""
    entry = read_json(directory / INDEX_FILE).get("vae")
    if not isinstance(entry, list) or entry[1:] != [ImageAutoencoder.__name__]:
        return None
    model = load_component(directory / "vae", torch.float32, device)
    return model if isinstance(model, ImageAutoencoder) else None
