"""Answers against masks, pixels and fields, computed here anew."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np

from kilonova.data.world.chance import generator
from kilonova.data.world.colours import COLOURS, lab
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.questions import QUESTION_KINDS, Question, absent_kinds, questions
from kilonova.data.world.render import SEMANTIC_CLASSES, Rendered, render
from kilonova.data.world.sampling import SceneConfig, sample_scene
from kilonova.data.world.scene import Background, Pose, Scene, SceneObject

SCENES = [sample_scene((41, i), SceneConfig(overlap=i % 3 == 0, max_objects=6)) for i in range(60)]
ASKED = [(scene, questions(scene, generator(i))) for i, scene in enumerate(SCENES)]
_BY_PLURAL = {kind.plural: name for name, kind in KINDS.items()}


@cache
def drawn(scene: Scene) -> Rendered:
    return render(scene, 96)


def _alone(thing: SceneObject) -> Scene:
    return Scene((replace(thing, parent=None, pose=replace(thing.pose, x=0.5, y=0.5)),))


def asked(kind: str) -> list[tuple[Scene, Question]]:
    return [(scene, question) for scene, found in ASKED for question in found if question.kind == kind]


def test_answers_are_among_distinct_choices_and_every_kind_is_asked() -> None:
    for scene, found in ASKED:
        assert len(set(found)) == len(found)
        for question in found:
            assert question.answer in question.choices
            assert 2 <= len(set(question.choices)) == len(question.choices) <= 4
            assert question.text.endswith("?")
            assert all(0 <= index < len(scene.objects) for index in question.subjects)
    assert {question.kind for _, found in ASKED for question in found} == set(QUESTION_KINDS)


def test_presence_is_what_the_semantic_map_shows_and_yes_is_as_common_as_no() -> None:
    answers: Counter[str] = Counter()
    for scene, question in asked("object"):
        if question.answer in ("yes", "no"):
            found = re.search(r"an? ((?:lightning |ice cream )?\w+)( in the picture)?\?", question.text)
            assert found is not None
            label = SEMANTIC_CLASSES.index(found.group(1))
            assert (question.answer == "yes") == bool((drawn(scene).semantic == label).any()), question
            answers[question.answer] += 1
    assert 0.8 < answers["yes"] / answers["no"] < 1.25


def test_counts_are_those_of_masks_of_that_kind() -> None:
    for scene, question in asked("counting"):
        plural = re.fullmatch(r"How many (.*) (are there|does the picture show)\?", question.text)
        assert plural is not None
        masks = drawn(scene).masks
        kind = _BY_PLURAL[plural.group(1)]
        seen = [mask.any() for thing, mask in zip(scene.objects, masks, strict=True) if thing.kind == kind]
        assert sum(seen) == int(question.answer)


def test_colours_are_those_of_the_pixels() -> None:
    for scene, question in asked("color"):
        if not question.subjects:
            continue
        pixels = drawn(scene).image[..., :3][drawn(scene).masks[question.subjects[0]]]
        named = question.answer if question.answer in COLOURS else re.split(r" |\?", question.text)[-2]
        near = np.linalg.norm(lab(pixels) - lab(np.array(COLOURS[named])), axis=-1) < 22
        assert (near.mean() > 0.12) or question.answer == "no", question
        if question.answer == "no":
            assert scene.objects[question.subjects[0]].colour != named


def test_wrongly_bound_pairs_do_not_occur() -> None:
    bound = [(scene, question) for scene, question in asked("color") if question.text.startswith("Is there")]
    assert len(bound) > 10
    for scene, question in bound:
        found = re.fullmatch(r"Is there an? (\w+) (.+)\?", question.text)
        assert found is not None
        assert question.answer == "no"
        assert found.groups() not in {(thing.colour, thing.kind) for thing in scene.objects}
        assert found.group(1) in {thing.colour for thing in scene.objects}


def test_relations_by_centroid_of_masks() -> None:
    checked = 0
    for scene, question in asked("relation"):
        i, j = question.subjects
        masks = drawn(scene).masks
        (x1, y1), (x2, y2) = (np.array([axis.mean() for axis in np.nonzero(masks[one])[::-1]]) for one in (i, j))
        truths = {"to the left of": x1 < x2, "to the right of": x1 > x2, "above": y1 < y2, "below": y1 > y2}
        for words, truth in truths.items():
            if f" {words} the " in question.text:
                assert (question.answer == "yes") == truth, question
                checked += 1
        if question.answer in ("left of", "right of"):
            assert (x1 < x2) == (question.answer == "left of")
        if question.answer in ("above", "below"):
            assert (y1 < y2) == (question.answer == "above")
    assert checked > 40


def test_positions_and_sizes_by_masks() -> None:
    for scene, question in asked("position"):
        left, top, right, bottom = drawn(scene).boxes[question.subjects[0]] / 96
        rows, columns = np.nonzero(drawn(scene).masks[question.subjects[0]])
        x, y = (left + right) / 2, (top + bottom) / 2
        assert ("left" in question.answer) == (x < 0.4)
        assert ("right" in question.answer) == (x > 0.6)
        assert ("top" in question.answer) == (y < 0.4)
        assert ("bottom" in question.answer) == (y > 0.6)
        assert abs(columns.mean() / 96 - x) < 0.12
        assert abs(rows.mean() / 96 - y) < 0.12
    for scene, question in asked("size"):
        # Each alone, so that neither covers the other.
        alone = [render(_alone(scene.objects[index]), 96).masks[0].sum() for index in question.subjects]
        assert max(alone) > 1.15 * min(alone)
        larger = question.choices[int(np.argmax(alone))]
        assert (question.answer == larger) == ("larger" in question.text)


def test_text_and_background() -> None:
    for scene, question in [*asked("text"), *asked("background")]:
        if question.text == "What does the text say?":
            assert scene.text is not None
            assert scene.text.word == question.answer
        if question.text == "Is there a word in the picture?":
            assert (question.answer == "yes") == bool(drawn(scene).text_mask.any())
        if question.kind == "background":
            assert question.answer in (scene.background.kind, scene.background.colour, "yes", "no")


def test_nobody_is_asked_for_what_only_looks_absent() -> None:
    night = Scene((SceneObject("apple", "red", "plain", "large", Pose(0.5, 0.5, 0.3)),), Background("night", None))
    assert not {"star", "leaf", "apple", "circle"} & set(absent_kinds(night))
    assert "house" in absent_kinds(night)
    plain = Scene((SceneObject("heart", "red", "plain", "large", Pose(0.5, 0.5, 0.3)),))
    assert {"circle", "square", "star"} <= set(absent_kinds(plain))
