"""Every referring expression fits exactly one thing, judged from masks and fields alone."""

from __future__ import annotations

import numpy as np

from kilonova.data.world.chance import generator
from kilonova.data.world.referring import EXTREMES, Referring, referring_expressions
from kilonova.data.world.render import render
from kilonova.data.world.sampling import SceneConfig, sample_scene
from kilonova.data.world.scene import Background, Pose, Scene, SceneObject

SCENES = [sample_scene((31, i), SceneConfig(overlap=i % 2 == 0, max_objects=6)) for i in range(60)]


def candidates(scene: Scene, expression: Referring) -> list[int]:
    said = expression.description
    return [
        index
        for index, thing in enumerate(scene.objects)
        if (said.kind is None or said.kind == thing.kind)
        and (said.colour is None or said.colour == thing.colour)
        and (said.texture is None or said.texture == thing.texture)
        and (said.size is None or said.size == thing.size)
    ]


def middles(scene: Scene) -> np.ndarray:
    masks = render(scene, 96).masks
    return np.array([[axis.mean() for axis in np.nonzero(mask)[::-1]] for mask in masks])


def test_every_expression_fits_one_thing() -> None:
    kinds = {"looks": 0, "relation": 0, "extreme": 0}
    for index, scene in enumerate(SCENES):
        for expression in referring_expressions(scene, generator(index)):
            fitting = candidates(scene, expression)
            assert expression.index in fitting
            if expression.relation is None and expression.extreme is None:
                assert fitting == [expression.index], expression
                kinds["looks"] += 1
            elif expression.extreme in ("left", "right", "top", "bottom"):
                axis, sign = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}[expression.extreme]
                along = sign * middles(scene)[fitting, axis]
                assert fitting[int(along.argmin())] == expression.index
                assert np.sort(along)[1] - along.min() > 3
                kinds["extreme"] += 1
            elif expression.relation is not None and expression.relation[0] in ("left of", "right of"):
                name, anchor = expression.relation
                x = middles(scene)[:, 0]
                there = [i for i in fitting if i != anchor and (x[i] < x[anchor]) == (name == "left of")]
                assert there == [expression.index], expression
                kinds["relation"] += 1
    assert min(kinds.values()) >= 10, kinds


def test_words_say_what_the_description_says() -> None:
    for index, scene in enumerate(SCENES):
        for expression in referring_expressions(scene, generator(index)):
            said = expression.description
            assert expression.text.startswith("the ")
            assert (said.kind or "") in expression.text
            assert said.colour is None or f" {said.colour} " in expression.text
            if expression.extreme:
                assert any(word in expression.text for word in EXTREMES[expression.extreme])


def test_a_relation_names_the_one_of_two_that_looks_cannot() -> None:
    star = SceneObject("star", "red", "plain", "medium", Pose(0.2, 0.5, 0.15))
    house = SceneObject("house", "blue", "plain", "medium", Pose(0.5, 0.5, 0.15))
    other = SceneObject("star", "red", "plain", "medium", Pose(0.8, 0.5, 0.15))
    scene = Scene((star, house, other), Background("plain", "white"))
    found = referring_expressions(scene, generator(0))
    assert {one.index for one in found if one.relation == ("left of", 1)} == {0}
    assert {one.index for one in found if one.relation == ("right of", 1)} == {2}
    assert {one.index for one in found if one.extreme == "left"} == {0}
    assert not [one for one in found if one.index != 1 and one.relation is None and one.extreme is None]
    unclear = SceneObject("star", "red", "plain", "medium", Pose(0.45, 0.1, 0.09))
    found = referring_expressions(Scene((star, house, unclear)), generator(0))
    assert not [one for one in found if one.relation == ("left of", 1)]
