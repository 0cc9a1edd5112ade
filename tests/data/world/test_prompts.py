"""Prompts say what they require, and requirements tell right pictures from wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

from kilonova.core.errors import DataError
from kilonova.data.world.colours import COLOURS
from kilonova.data.world.held_out import is_held_out
from kilonova.data.world.prompts import PROMPT_TASKS, Detection, Prompt, Requirement, prompts, relative_position
from kilonova.data.world.render import render
from kilonova.data.world.sampling import SceneConfig, sample_scene
from kilonova.data.world.scene import Scene


def detections(scene: Scene) -> list[Detection]:
    boxes = render(scene, 64).boxes
    return [
        Detection(thing.kind, thing.colour, tuple(map(float, box)))
        for thing, box in zip(scene.objects, boxes, strict=True)
    ]


@pytest.mark.parametrize("task", PROMPT_TASKS)
def test_prompts_are_functions_of_their_seed_and_name_what_they_require(task: str) -> None:
    assert prompts(task, (1, 2)) == prompts(task, (1, 2))
    assert len({prompts(task, seed).text for seed in range(30)}) > 20
    for seed in range(30):
        prompt = prompts(task, seed)
        assert prompt.task == task
        assert len(prompt.requirements) == {"two_object": 2, "position": 2, "color_attr": 2}.get(task, 1)
        for required in prompt.requirements:
            assert required.kind[:3] in prompt.text
            assert (required.colour is not None) == (task in ("colors", "color_attr"))
            assert required.colour is None or f"{required.colour} {required.kind}" in prompt.text
        assert prompt.exact == (task == "counting")
        assert not prompt.satisfied_by([])


@pytest.mark.parametrize("task", ["colors", "color_attr"])
def test_held_out_prompts_name_a_withheld_pair_and_training_prompts_none(task: str) -> None:
    for seed in range(40):
        for split in ("train", "held_out"):
            withheld = [
                is_held_out(one.kind, one.colour)
                for one in prompts(task, seed, split).requirements  # type: ignore[arg-type]
                if one.colour
            ]
            assert withheld[0] == (split == "held_out")
            assert not any(withheld[1:])


def test_a_scene_satisfies_the_prompt_that_describes_it_and_no_contradiction() -> None:
    rng = np.random.default_rng(0)
    for index in range(40):
        scene = sample_scene((1, index), SceneConfig(task="colour_binding"))
        found = detections(scene)
        first, second = scene.objects[:2]
        bound = Prompt("", "color_attr", (Requirement(first.kind, colour=first.colour),
                                          Requirement(second.kind, colour=second.colour)))  # fmt: skip
        swapped = Prompt("", "color_attr", (Requirement(first.kind, colour=second.colour),
                                            Requirement(second.kind, colour=first.colour)))  # fmt: skip
        assert bound.satisfied_by(found)
        assert not swapped.satisfied_by(found)
        other = rng.choice([colour for colour in COLOURS if colour != first.colour])
        assert not Prompt("", "colors", (Requirement(first.kind, colour=str(other)),)).satisfied_by(found)


def test_counts_are_exact_only_where_asked() -> None:
    scene = sample_scene(7, SceneConfig(task="counting", min_objects=3, max_objects=3))
    kind, found = scene.objects[0].kind, detections(scene)
    for count, exact, expected in ((3, True, True), (2, True, False), (4, True, False), (2, False, True)):
        assert Prompt("", "counting", (Requirement(kind, count),), exact).satisfied_by(found) is expected


def test_positions_follow_the_offset_of_centres_beyond_a_tenth_of_the_sizes() -> None:
    cup, box = Detection("cup", "red", (0, 40, 20, 60)), Detection("box", "blue", (60, 40, 80, 60))
    assert relative_position(cup, box) == {"left of"}
    assert relative_position(box, cup) == {"right of"}
    assert relative_position(Detection("cup", "red", (0, 0, 20, 20)), box) == {"left of", "above"}
    assert relative_position(Detection("cup", "red", (61, 42, 81, 62)), box) == set()
    left = Prompt("", "position", (Requirement("cup", relation=("left of", 1)), Requirement("box")))
    assert left.satisfied_by([cup, box])
    assert not left.satisfied_by([cup])
    right = Prompt("", "position", (Requirement("cup", relation=("right of", 1)), Requirement("box")))
    assert not right.satisfied_by([cup, box])


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match="task is 'color'; did you mean 'colors'"):
        prompts("color", 0)
