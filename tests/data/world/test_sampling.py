"""Scenes are functions of their seed, stay in the frame, and keep withheld combinations apart."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from kilonova.core.errors import DataError
from kilonova.data.world.colours import COLOURS
from kilonova.data.world.held_out import HELD_OUT, has_held_out, is_held_out
from kilonova.data.world.kinds import KINDS, TEXTURES
from kilonova.data.world.raster import box, centres
from kilonova.data.world.render import render
from kilonova.data.world.sampling import TASKS, SceneConfig, sample_scene
from kilonova.data.world.scene import Background, Pose, Scene, SceneObject, SceneText

SCENES = [sample_scene((9, i), SceneConfig(overlap=i % 2 == 0, max_objects=8)) for i in range(120)]


def root(scene: Scene, index: int) -> int:
    parent = scene.objects[index].parent
    return index if parent is None else root(scene, parent)


def test_the_same_seed_gives_the_same_scene_in_every_process() -> None:
    code = "from kilonova.data.world.sampling import sample_scene; print([sample_scene((4, i)) for i in range(20)])"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == repr([sample_scene((4, i)) for i in range(20)])
    assert sample_scene(4) == sample_scene(4)
    assert len({sample_scene(seed) for seed in range(30)}) == 30


def test_a_known_seed_gives_a_known_scene() -> None:
    assert sample_scene((0, 1), SceneConfig(task="colour_binding")) == Scene(
        objects=(
            SceneObject("ring", "yellow", "plain", "medium", Pose(0.2448, 0.805, 0.1664, 0.0), depth=0),
            SceneObject("castle", "brown", "plain", "medium", Pose(0.6176, 0.4314, 0.1467, -1.0544), depth=1),
            SceneObject("gift", "red", "plain", "medium", Pose(0.6721, 0.7628, 0.159, -3.9676), depth=2),
        ),
        background=Background("gradient", "light pink", 0.5487),
        task="colour_binding",
    )


@pytest.mark.parametrize("size", [(1.0, 1.0), (1.0, 2.0), (3.0, 1.0)])
def test_whole_things_lie_in_the_frame_and_strangers_apart(size: tuple[float, float]) -> None:
    for scene in SCENES:
        middles = centres(scene, *size)
        boxes = [box(thing, middle, min(size)) for thing, middle in zip(scene.objects, middles, strict=True)]
        for i, first in enumerate(boxes):
            assert (first[:2] >= -1e-6).all()
            assert (first[2:] <= np.array(size) + 1e-6).all()
            for j, second in enumerate(boxes[:i]):
                if root(scene, i) != root(scene, j):
                    assert (first[:2] >= second[2:]).any() or (second[:2] >= first[2:]).any()


def test_text_is_never_on_a_thing() -> None:
    for index in range(40):
        scene = sample_scene((3, index), SceneConfig(task="text"))
        assert scene.text is not None
        for size in ((80, 80), (60, 100), (100, 60)):
            rendered = render(scene, size)
            rows = np.nonzero(rendered.text_mask.any(1))[0]
            for _, top, _, bottom in rendered.boxes:
                assert bottom <= rows.min() + 1 or top >= rows.max()


def test_covered_things_can_still_be_seen() -> None:
    covered = 0
    for index in range(40):
        scene = sample_scene((6, index), SceneConfig(task="relations", overlap=True))
        rendered = render(scene, 64)
        for number, thing in enumerate(scene.objects):
            whole = render(Scene((thing if thing.parent is None else _freed(scene, number),)), 64).masks[0].sum()
            share = rendered.masks[number].sum() / whole
            assert share > 0.45
            covered += share < 0.95
    assert covered > 5


def _freed(scene: Scene, index: int) -> SceneObject:
    thing = scene.objects[index]
    x, y = centres(scene, 1, 1)[index]
    pose = Pose(float(x), float(y), thing.pose.scale, thing.pose.rotation)
    return SceneObject(thing.kind, thing.colour, thing.texture, thing.size, pose)


def test_tasks_have_their_shape() -> None:
    for index in range(12):
        scenes = {
            task: sample_scene((1, index), SceneConfig(task=task, min_objects=2, max_objects=4)) for task in TASKS
        }
        assert all(scene.task == task for task, scene in scenes.items())
        assert len(scenes["single_object"].objects) == len(scenes["position"].objects) == 1
        assert len({thing.kind for thing in scenes["two_objects"].objects}) == 2
        counted = [thing.kind for thing in scenes["counting"].objects]
        assert 2 <= counted.count(counted[0]) <= 4
        bound = scenes["colour_binding"].objects
        assert len({thing.colour for thing in bound}) == len({thing.kind for thing in bound}) == len(bound)
        assert scenes["text"].text is not None
        assert 2 <= len(scenes["free"].objects) <= 4


def test_training_scenes_have_no_withheld_combination_and_held_out_scenes_all_do() -> None:
    assert not any(has_held_out(scene) for scene in SCENES)
    for task in TASKS:
        for index in range(15):
            config = SceneConfig(task=task, split="held_out", overlap=True)
            assert has_held_out(sample_scene((2, index), config)), task


def test_one_colour_in_twelve_and_one_texture_in_five_is_withheld() -> None:
    colour_pairs = [(kind, colour) for kind in KINDS for colour in COLOURS if is_held_out(kind, colour)]
    texture_pairs = [(kind, texture) for kind in KINDS for texture in TEXTURES if is_held_out(kind, texture)]
    assert sorted(HELD_OUT) == sorted(colour_pairs + texture_pairs)
    assert [kind for kind, _ in colour_pairs] == [kind for kind, _ in texture_pairs] == list(KINDS)
    per_colour = [sum(colour == other for _, other in colour_pairs) for colour in COLOURS]
    assert max(per_colour) - min(per_colour) <= 1
    assert "plain" not in {texture for _, texture in texture_pairs}
    shares = [
        0.5 * is_held_out(kind, colour)
        + 0.1 * sum(is_held_out(kind, colour) or is_held_out(kind, t) for t in TEXTURES[1:])
        for kind in KINDS
        for colour in COLOURS
    ]
    assert np.mean(shares) == pytest.approx(0.175)
    seen = {(thing.kind, thing.colour) for scene in SCENES for thing in scene.objects}
    assert {kind for kind, _ in seen} == set(KINDS)
    assert {colour for _, colour in seen} == set(COLOURS)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    pose = Pose(0.5, 0.5, 0.2)
    with pytest.raises(DataError, match="kind is 'stra'; did you mean 'star'"):
        SceneObject("stra", "red", "plain", "small", pose)
    with pytest.raises(DataError, match="colour is 'gren'; did you mean 'green'"):
        SceneObject("star", "gren", "plain", "small", pose)
    with pytest.raises(DataError, match="colour must be None"):
        Background("meadow", "white")
    with pytest.raises(DataError, match="1 to 20 printable"):
        SceneText("", "red")
    with pytest.raises(DataError, match=r"objects\[0\].parent is 0"):
        Scene((SceneObject("star", "red", "plain", "small", pose, parent=0),))
    with pytest.raises(DataError, match="min_objects, max_objects are 3, 2"):
        SceneConfig(min_objects=3, max_objects=2)
    with pytest.raises(DataError, match="task is 'count'; did you mean 'counting'"):
        SceneConfig(task="count")
    with pytest.raises(DataError, match="seed is"):
        sample_scene((1, -2))
    with pytest.raises(DataError, match="attribute is 'rde'; did you mean 'red'"):
        is_held_out("star", "rde")
