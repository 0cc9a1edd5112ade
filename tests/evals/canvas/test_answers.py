"""Questions about scenes, answered from what is seen in their pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.evals.canvas.fakes import Eyes

from kilonova.core.errors import DataError
from kilonova.data.world.captions import long_caption, short_caption
from kilonova.data.world.describe import Description
from kilonova.data.world.questions import Question, questions
from kilonova.data.world.sampling import SceneConfig, sample_scene
from kilonova.data.world.scene import Background, Pose, Scene, SceneObject
from kilonova.evals.canvas.answers import UNANSWERED, answer
from kilonova.evals.canvas.implied import implied
from kilonova.evals.canvas.nouns import read_noun
from kilonova.evals.canvas.recogniser import Recogniser, distinct
from kilonova.studio.segmentation import Segment

SCENE = Scene(
    (
        SceneObject("fish", "red", "striped", "medium", Pose(0.25, 0.5, 0.18)),
        SceneObject("ice cream cone", "blue", "plain", "medium", Pose(0.75, 0.5, 0.18)),
    ),
    Background("plain", "white"),
)


@pytest.fixture
def eyes() -> Eyes:
    return Eyes()


def test_right_pictures_answer_every_question_right(eyes: Eyes) -> None:
    looker, kinds, in_front = Recogniser(eyes, eyes), set(), []
    for index in range(48):
        config = SceneConfig(task="relations" if index % 3 == 0 else None, overlap=True, split="held_out")
        scene = sample_scene((9, index), config)
        seen = looker.look(eyes.remember(scene))
        for question in questions(scene, np.random.default_rng(index)):
            kinds.add(question.kind)
            right = answer(question, seen) == question.answer
            if "in front of" in question.text or "behind" in question.text:
                in_front.append(right)
            else:
                assert right, (index, question)
    assert len(kinds) == 10
    assert len(in_front) > 10
    assert np.mean(in_front) > 0.8


@pytest.mark.parametrize(
    ("kind", "text", "choices", "given"),
    [
        ("color", "What color is the fish?", ("red", "green"), "red"),
        ("color", "Is the striped fish green?", ("yes", "no"), "no"),
        ("color", "Is there a red ice cream cone?", ("yes", "no"), "no"),
        ("color", "What color is the castle?", ("red", "green"), UNANSWERED),
        ("texture", "Is the fish plain or striped?", ("plain", "striped"), "striped"),
        ("object", "What is the blue object?", ("ice cream cone", "cat"), "ice cream cone"),
        ("relation", "Is the fish to the left of the ice cream cone?", ("yes", "no"), "yes"),
        ("relation", "Where is the fish, seen from the castle?", ("left of", "above"), UNANSWERED),
        ("position", "Where in the picture is the fish?", ("left", "top"), "left"),
        ("counting", "How many fish are there?", ("1", "2"), "1"),
        ("counting", "How many ice cream cones does the picture show?", ("1", "2"), "1"),
        ("background", "What color is the background?", ("white", "light pink"), "white"),
        ("text", "What does the text say?", ("GO", "HI"), UNANSWERED),
    ],
)
def test_answers_are_what_the_picture_shows(
    eyes: Eyes, kind: str, text: str, choices: tuple[str, ...], given: str
) -> None:
    seen = Recogniser(eyes, eyes).look(eyes.remember(SCENE))
    assert answer(Question(kind, text, "", choices), seen) == given


def test_what_is_there_but_looks_otherwise_is_still_meant(eyes: Eyes) -> None:
    green = replace(SCENE, objects=(replace(SCENE.objects[0], colour="green", texture="plain"), SCENE.objects[1]))
    seen = Recogniser(eyes, eyes).look(eyes.remember(green))
    assert answer(Question("color", "What color is the striped fish?", "red", ("red", "green")), seen) == "green"
    assert answer(Question("object", "What is the red thing?", "fish", ("fish", "cat")), seen) == UNANSWERED


def test_nouns_are_read() -> None:
    assert read_noun("a small spotted red ice cream cone") == Description("ice cream cone", "red", "dotted", "small")
    assert read_noun("the glossy thing") == Description(None, None, "shiny")
    with pytest.raises(DataError, match="'quick'"):
        read_noun("quick fish")


def test_only_what_a_caption_says_is_asked() -> None:
    plain = replace(SCENE, objects=tuple(replace(one, texture="plain") for one in SCENE.objects))
    kinds = {"short": set(), "long": set()}
    for seed in range(30):
        for name, tell in (("short", short_caption), ("long", long_caption)):
            caption = tell(plain, np.random.default_rng(seed))
            asked = implied(plain, caption, questions(plain, np.random.default_rng(seed)))
            kinds[name] |= {question.kind for question in asked}
            aspects = {claim.aspect for claim in caption.claims}
            for kind, aspect in (("background", "background"), ("relation", "relation"), ("position", "place")):
                assert any(question.kind == kind for question in asked) == (aspect in aspects), caption.text
            said = {subject for claim in caption.claims if claim.aspect == "colour" for subject in claim.subjects}
            assert all(set(one.subjects) <= said for one in asked if one.kind == "color")
    assert kinds["long"] == {"object", "counting", "color", "relation", "position", "background", "text"}
    assert kinds["short"] <= kinds["long"]


def test_a_place_is_named_once_by_the_surest() -> None:
    whole, half = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    whole[2:8, 2:8] = True
    half[2:8, 2:4] = True
    places = {("cat", 0.7): whole, ("bird", 0.9): whole, ("key", 0.6): half, ("bus", 0.3): ~whole}
    found = distinct([Segment(name, score, mask) for (name, score), mask in places.items()])
    assert [segment.name for segment in found] == ["bird", "key"]
