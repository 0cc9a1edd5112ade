"""Prompts with checkable content for the six tasks of GenEval (Ghosh et al. 2023, arXiv:2310.11513) on this world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kilonova.core.errors import DataError, nearest
from kilonova.data.world.chance import Seed, generator, pick, whole
from kilonova.data.world.colours import COLOURS
from kilonova.data.world.held_out import HELD_OUT, is_held_out
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.looks import Split
from kilonova.data.world.wording import counted

PROMPT_TASKS: tuple[str, ...] = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
POSITIONS: tuple[str, ...] = ("left of", "right of", "above", "below")
_SLACK = 0.1
_DIRECTION = 0.5


@dataclass(frozen=True)
class Detection:
    """One thing found in a picture; `box` is (left, top, right, bottom) in any unit."""

    kind: str
    colour: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Requirement:
    """`count` things of `kind`, of `colour` if given, standing in `relation` (name, index of another requirement)."""

    kind: str
    count: int = 1
    colour: str | None = None
    relation: tuple[str, int] | None = None

    def fitting(self, found: Sequence[Detection]) -> list[Detection]:
        """What was found of this kind and colour."""
        return [one for one in found if one.kind == self.kind and self.colour in (None, one.colour)]


@dataclass(frozen=True)
class Prompt:
    """A prompt and what a picture must show for it; `exact` counts must not be exceeded."""

    text: str
    task: str
    requirements: tuple[Requirement, ...]
    exact: bool = False

    def satisfied_by(self, found: Sequence[Detection]) -> bool:
        """Whether everything required is among what was found, by GenEval's rules."""
        for requirement in self.requirements:
            fitting = requirement.fitting(found)
            if len(fitting) < requirement.count or (self.exact and len(fitting) > requirement.count):
                return False
            if requirement.relation is not None:
                name, other = requirement.relation
                anchors = self.requirements[other].fitting(found)
                if not any(name in relative_position(one, anchor) for one in fitting for anchor in anchors):
                    return False
        return True


def relative_position(first: Detection, second: Detection) -> set[str]:
    """Where `first` is, seen from `second`: centres apart by more than a tenth of both sizes, within 60 degrees of the
    axis (GenEval's rule)."""
    a, b = np.array(first.box).reshape(2, 2), np.array(second.box).reshape(2, 2)
    offset = a.mean(0) - b.mean(0)
    slack = _SLACK * (np.abs(a[1] - a[0]) + np.abs(b[1] - b[0]))
    beyond = np.maximum(np.abs(offset) - slack, 0) * np.sign(offset)
    length = float(np.linalg.norm(beyond))
    if length == 0:
        return set()
    x, y = beyond / length
    names = zip(POSITIONS, (x < -_DIRECTION, x > _DIRECTION, y < -_DIRECTION, y > _DIRECTION), strict=True)
    return {name for name, holds in names if holds}


def prompts(task: str, seed: Seed, split: Split = "train") -> Prompt:
    """One prompt for a task of `PROMPT_TASKS`, a function of its seed.

    In the held-out split, "colors" and "color_attr" name a withheld kind and colour; in the training split no prompt
    does; the other tasks name no colours. Raises `DataError` for an unknown task.
    """
    if task not in PROMPT_TASKS:
        raise DataError(f"task is {task!r}; {nearest(task, PROMPT_TASKS)}")
    rng = generator(seed)
    first = pick(rng, list(KINDS))
    second = pick(rng, [kind for kind in KINDS if kind != first])
    exact = False
    if task == "single_object":
        required: tuple[Requirement, ...] = (Requirement(first),)
    elif task == "two_object":
        required = (Requirement(first), Requirement(second))
    elif task == "counting":
        required, exact = (Requirement(first, count=whole(rng, 2, 4)),), True
    elif task == "colors":
        required = (_coloured(rng, first, split),)
    elif task == "position":
        required = (Requirement(first, relation=(pick(rng, POSITIONS), 1)), Requirement(second))
    else:
        bound = _coloured(rng, first, split)
        kinds = [kind for kind in KINDS if kind != bound.kind]
        required = (bound, _coloured(rng, pick(rng, kinds), "train", used=bound.colour))
    return Prompt(_text(required), task, required, exact)


def _coloured(rng: np.random.Generator, kind: str, split: Split, used: str | None = None) -> Requirement:
    if split == "held_out":
        kind, colour = pick(rng, [pair for pair in HELD_OUT if pair[1] in COLOURS])
    else:
        colour = pick(rng, [name for name in COLOURS if name != used and not is_held_out(kind, name)])
    return Requirement(kind, colour=colour)


def _text(required: tuple[Requirement, ...]) -> str:
    nouns = [counted(f"{one.colour} {one.kind}" if one.colour else one.kind, one.kind, one.count) for one in required]
    link = required[0].relation[0] if required[0].relation else "and"
    return f"a picture of {f' {link} '.join(nouns)}"
