"""Whether drawn icons are of the style, group and concept that their captions say, as a classifier sees them.

Captions are of concepts in styles in which training never shows them. The classifier learnt from the training split,
and its answers on the real held-back pictures are given beside those on drawn ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kilonova.evals.canvas.attributes import Attributes
from kilonova.evals.canvas.icons import COLUMNS, Icon, on_white
from kilonova.evals.canvas.report import Score
from kilonova.evals.canvas.statistics import distance_estimate, frechet_distance
from kilonova.evals.canvas.study import Study
from kilonova.evals.metrics import accuracy, bootstrap_ratio

TIFA = "tifa-icons"
STYLE = "style"
DISTANCE = "fd-kilonova"
_CHOICES = 4


def measure_faithfulness(study: Study) -> list[Score]:
    """The share of right answers to three questions a picture: which style, which group, which of four concepts."""
    assert study.icons is not None
    assert study.attributes is not None
    icons, drawn = _drawn(study, TIFA)
    real = [on_white(icon.picture) for icon in icons]
    asked = {name: _choices(study.attributes, icons, name, study.seed) for name in COLUMNS}
    found = {name: _right(study.attributes, icons, drawn, name, asked[name]) for name in COLUMNS}
    best = {name: _right(study.attributes, icons, real, name, asked[name]) for name in COLUMNS}
    others = {name: _right(study.attributes, icons, real[1:] + real[:1], name, asked[name]) for name in COLUMNS}
    counts = [sum(len(asked[name][index]) > 1 for name in COLUMNS) for index in range(len(icons))]
    right = [sum(found[name][index] for name in COLUMNS) for index in range(len(icons))]
    score = Score.of(
        TIFA,
        "share of right answers",
        bootstrap_ratio(right, counts, study.seed),
        len(icons),
        ceiling=_share(best, counts),
        baselines={"pictures of other captions": _share(others, counts)},
        parts={
            "by question": _by_question(found, asked),
            "ceiling by question": _by_question(best, asked),
            "concept first of all": _concept_share(study.attributes, icons, drawn, 1),
            "concept among the first five": _concept_share(study.attributes, icons, drawn, 5),
            "ceiling of concept first of all": _concept_share(study.attributes, icons, real, 1),
            "ceiling of concept among the first five": _concept_share(study.attributes, icons, real, 5),
        },
        details=[
            {"caption": icon.caption, "seed": study.seed + index, **{name: found[name][index] for name in COLUMNS}}
            for index, icon in enumerate(icons)
        ],
    )
    return [score]


def measure_style(study: Study) -> list[Score]:
    """The share of pictures that a classifier takes for the style that was asked for, beside that of real ones."""
    assert study.icons is not None
    assert study.attributes is not None
    icons, drawn = _drawn(study, STYLE)
    styles = study.attributes.heads["style"]
    choices = [styles for _ in icons]
    found = _right(study.attributes, icons, drawn, "style", choices)
    real = _right(study.attributes, icons, [on_white(icon.picture) for icon in icons], "style", choices)
    by_style = {
        style: round(float(np.mean(rows)), 4)
        for style in styles
        if (rows := [one for icon, one in zip(icons, found, strict=True) if icon.labels["style"] == style])
    }
    return [
        Score.of(
            STYLE,
            "share of the style asked for",
            accuracy(found),
            len(icons),
            ceiling=round(float(np.mean(real)), 4),
            baselines={"chance": round(1 / len(styles), 4)},
            parts={"by style": by_style},
        )
    ]


def measure_distance(study: Study) -> list[Score]:
    """The Frechet distance of drawn from real held-back pictures, in the features of our own classifier.

    It is no FID, and no two classifiers' distances compare. Real pictures are seen as training sees them. The baseline
    is the distance of as many training pictures.
    """
    assert study.icons is not None
    assert study.attributes is not None
    icons, drawn = _drawn(study, DISTANCE)
    real = study.attributes.features([on_white(icon.view) for icon in icons])
    known = study.attributes.features([on_white(icon.view) for icon in study.icons.known[: len(icons)]])
    return [
        Score.of(
            DISTANCE,
            "Frechet distance, less is better",
            distance_estimate(study.attributes.features(drawn), real, study.seed),
            len(icons),
            baselines={"training pictures": round(frechet_distance(known, real), 4)},
            note="features of the project's own classifier; not FID",
        )
    ]


def _drawn(study: Study, part: str) -> tuple[list[Icon], list[np.ndarray]]:
    assert study.icons is not None
    icons, drawn = study.icons.held_back[: study.limit], study.icon_pictures
    for icon, picture in zip(icons, drawn, strict=True):
        study.gallery.add(part, icon.caption, picture)
    return icons, drawn


def _choices(attributes: Attributes, icons: Sequence[Icon], name: str, seed: int) -> list[tuple[str, ...]]:
    """All values of a style or a group; four concepts, or none where the classifier does not know the right one."""
    values = attributes.heads[name]
    if name != "name":
        return [values for _ in icons]
    generator = np.random.default_rng(seed)
    found: list[tuple[str, ...]] = []
    for icon in icons:
        answer = icon.labels[name]
        others = [values[index] for index in generator.permutation(len(values)) if values[index] != answer]
        choices = [*others[: _CHOICES - 1], answer]
        found.append(tuple(choices[index] for index in generator.permutation(len(choices))) if answer in values else ())
    return found


def _right(
    attributes: Attributes,
    icons: Sequence[Icon],
    pictures: Sequence[np.ndarray],
    name: str,
    choices: Sequence[Sequence[str]],
) -> list[bool]:
    """Whether the likeliest of the choices is the icon's value; without choices it is not."""
    number = {value: index for index, value in enumerate(attributes.heads[name])}
    right = []
    for icon, row, values in zip(icons, attributes.probabilities(name, pictures), choices, strict=True):
        likeliest = max(values, key=lambda value: row[number[value]], default=None)
        right.append(likeliest == icon.labels[name])
    return right


def _concept_share(
    attributes: Attributes, icons: Sequence[Icon], pictures: Sequence[np.ndarray], most: int
) -> float | None:
    """The share of pictures for which fewer than `most` concepts are likelier than the right one, of those the
    classifier knows."""
    values = attributes.heads["name"]
    found = [
        (row > row[values.index(icon.labels["name"])]).sum() < most
        for icon, row in zip(icons, attributes.probabilities("name", pictures), strict=True)
        if icon.labels["name"] in values
    ]
    return round(float(np.mean(found)), 4) if found else None


def _share(right: dict[str, list[bool]], counts: Sequence[int]) -> float:
    return round(sum(sum(rows) for rows in right.values()) / sum(counts), 4)


def _by_question(right: dict[str, list[bool]], asked: dict[str, list[tuple[str, ...]]]) -> dict[str, float]:
    answered = {
        name: [one for one, choices in zip(rows, asked[name], strict=True) if choices] for name, rows in right.items()
    }
    return {name: round(float(np.mean(rows)), 4) for name, rows in answered.items() if rows}
