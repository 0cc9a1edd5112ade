"""GenEval's six tasks (arXiv 2310.11513) on kinds of the drawn world: single object, two objects, counting, colours,
position, and two objects of given colours."""

from __future__ import annotations

import numpy as np

from kilonova.data.world import placing
from kilonova.data.world.chance import generator, pick
from kilonova.data.world.colours import COLOURS
from kilonova.data.world.held_out import is_held_out
from kilonova.data.world.looks import choose_background
from kilonova.data.world.prompts import PROMPT_TASKS, Prompt, Requirement, prompts
from kilonova.data.world.render import render
from kilonova.data.world.scene import Scene
from kilonova.evals.canvas.recogniser import detections
from kilonova.evals.canvas.report import Score
from kilonova.evals.canvas.study import Study
from kilonova.evals.metrics import bootstrap_mean
from kilonova.studio.segmentation import Segmenter
from kilonova.studio.tasks import TextToImage

PART = "geneval"
_SEED = 20_000


def geneval_prompts(count: int, seed: int) -> list[Prompt]:
    """Equally many prompts of each task, about `count` in all, colours being those that training never shows."""
    each = max(1, count // len(PROMPT_TASKS))
    return [prompts(task, (_SEED + seed, index), "held_out") for task in PROMPT_TASKS for index in range(each)]


def scene_for(prompt: Prompt, seed: int) -> Scene:
    """A scene that shows what a prompt asks for."""
    rng = generator(seed)
    looks = [(one.kind, one.colour or _colour(rng, one), "plain") for one in prompt.requirements]
    families = [
        placing.thing(rng, look, "medium")
        for look, one in zip(looks, prompt.requirements, strict=True)
        for _ in range(one.count)
    ]
    relation = prompt.requirements[0].relation
    if relation is not None:
        things = placing.beside(rng, families[0], families[1], relation[0])
    else:
        things = placing.scatter(rng, families)
    return Scene(things, background=choose_background(rng, looks, None))


def measure(study: Study) -> list[Score]:
    """The mean over tasks of the share of pictures that show all that was asked for."""
    asked = geneval_prompts(study.limit, study.seed)
    assert study.segmenter is not None
    drawn, ceiling = [], []
    for index, prompt in enumerate(study.track(PART, asked)):
        picture = study.draw(TextToImage(text=prompt.text), index)
        study.gallery.add(PART, prompt.text, picture)
        drawn.append(_shows(study.segmenter, prompt, picture))
        true = render(scene_for(prompt, index), study.size).image[..., :3]
        ceiling.append(_shows(study.segmenter, prompt, true))
    return [
        Score.of(
            PART,
            "share of pictures as asked for",
            bootstrap_mean([float(one) for one in drawn], study.seed),
            len(asked),
            ceiling=round(float(np.mean(ceiling)), 4),
            parts={"by task": _by_task(asked, drawn), "ceiling by task": _by_task(asked, ceiling)},
            details=[
                {"prompt": prompt.text, "task": prompt.task, "seed": study.seed + index, "right": drawn[index]}
                for index, prompt in enumerate(asked)
            ],
        )
    ]


def _shows(segmenter: Segmenter, prompt: Prompt, picture: np.ndarray) -> bool:
    return prompt.satisfied_by(detections(segmenter, picture))


def _colour(rng: np.random.Generator, one: Requirement) -> str:
    return pick(rng, [name for name in COLOURS if not is_held_out(one.kind, name)])


def _by_task(asked: list[Prompt], right: list[bool]) -> dict[str, float]:
    return {
        task: round(float(np.mean([one for prompt, one in zip(asked, right, strict=True) if prompt.task == task])), 4)
        for task in PROMPT_TASKS
    }
