"""Whether pictures show what their captions say: TIFA (arXiv 2303.11897) with exact questions and answers.

Scenes hold a combination of a kind and a look that training never shows. Their captions, short and long in turn, are
drawn; of the questions about a scene those count that follow from its caption.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kilonova.data.world.captions import Caption, long_caption, short_caption
from kilonova.data.world.chance import generator
from kilonova.data.world.questions import Question, questions
from kilonova.data.world.render import render
from kilonova.data.world.sampling import SceneConfig, sample_scene
from kilonova.data.world.scene import Scene
from kilonova.evals.canvas.answers import answer
from kilonova.evals.canvas.implied import implied
from kilonova.evals.canvas.report import Score
from kilonova.evals.canvas.study import Study
from kilonova.evals.metrics import bootstrap_ratio
from kilonova.studio.tasks import TextToImage

PART = "tifa-world"
# Apart from the seeds that recipes train with.
_SEED = 10_000


@dataclass(frozen=True)
class Case:
    """A scene, what a model is told of it, and what its picture is asked."""

    scene: Scene
    caption: Caption
    questions: tuple[Question, ...]


def world_cases(count: int, seed: int) -> list[Case]:
    """The first `count` cases of a seed, with at least one question each."""
    cases: list[Case] = []
    index = 0
    while len(cases) < count:
        scene = sample_scene((_SEED + seed, index), SceneConfig(split="held_out"))
        rng = generator((_SEED + seed, index))
        caption = (long_caption if index % 2 else short_caption)(scene, rng)
        asked = implied(scene, caption, questions(scene, rng))
        index += 1
        if asked:
            cases.append(Case(scene, caption, tuple(asked)))
    return cases


def measure(study: Study) -> list[Score]:
    """The share of right answers by the drawn pictures, by right ones, and by right ones of other captions."""
    cases = world_cases(study.limit, study.seed)
    true = [render(case.scene, study.size).image[..., :3] for case in cases]
    drawn, details = [], []
    for index, case in enumerate(study.track(PART, cases)):
        picture = study.draw(TextToImage(text=case.caption.text), index)
        study.gallery.add(PART, case.caption.text, picture)
        drawn.append(_answers(study, case, picture))
        details.append({"caption": case.caption.text, "seed": study.seed + index, "answers": _asked(case, drawn[-1])})
    ceiling = [_answers(study, case, picture) for case, picture in zip(cases, true, strict=True)]
    others = [_answers(study, case, picture) for case, picture in zip(cases, true[1:] + true[:1], strict=True)]
    counts = [len(case.questions) for case in cases]
    right = [sum(_right(case, given)) for case, given in zip(cases, drawn, strict=True)]
    return [
        Score.of(
            PART,
            "share of right answers",
            bootstrap_ratio(right, counts, study.seed),
            len(cases),
            ceiling=_share(cases, ceiling),
            baselines={"pictures of other captions": _share(cases, others)},
            parts={
                "questions": sum(counts),
                "by kind": _by_kind(cases, drawn),
                "ceiling by kind": _by_kind(cases, ceiling),
            },
            details=details,
        )
    ]


def _answers(study: Study, case: Case, picture: np.ndarray) -> list[str]:
    seen = study.recogniser.look(picture)
    return [answer(question, seen) for question in case.questions]


def _asked(case: Case, given: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"kind": question.kind, "question": question.text, "answer": question.answer, "given": said}
        for question, said in zip(case.questions, given, strict=True)
    ]


def _right(case: Case, given: Sequence[str]) -> list[bool]:
    return [question.answer == said for question, said in zip(case.questions, given, strict=True)]


def _share(cases: Sequence[Case], given: Sequence[Sequence[str]]) -> float:
    right = [one for case, answers in zip(cases, given, strict=True) for one in _right(case, answers)]
    return round(float(np.mean(right)), 4)


def _by_kind(cases: Sequence[Case], given: Sequence[Sequence[str]]) -> dict[str, float]:
    right = defaultdict(list)
    for case, answers in zip(cases, given, strict=True):
        for question, one in zip(case.questions, _right(case, answers), strict=True):
            right[question.kind].append(one)
    return {kind: round(float(np.mean(values)), 4) for kind, values in sorted(right.items())}
