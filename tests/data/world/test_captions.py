"""What captions claim against masks, and their words against their claims."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from kilonova.data.world.captions import Caption, Claim, long_caption, short_caption
from kilonova.data.world.chance import generator
from kilonova.data.world.colours import COLOURS
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.render import Rendered, render
from kilonova.data.world.sampling import SceneConfig, sample_scene
from kilonova.data.world.scene import Background, Pose, Scene, SceneObject, SceneText
from kilonova.data.world.wording import NUMBERS, RELATION_WORDS, TEXTURE_WORDS

SCENES = [sample_scene((21, i), SceneConfig(overlap=i % 2 == 0, max_objects=6)) for i in range(80)]
SCENES += [sample_scene((22, i), SceneConfig(task="relations", overlap=True)) for i in range(30)]


# Colours of backgrounds and of letters, which are no claims about things.
_OTHER_COLOURS = (
    r"\b(on|against) an? (plain )?(light |dark )?\w+ (checkered )?(gradient )?(background|gradient)\b",
    r"\b(light |dark )?\w+ walls",
    r"green meadow under a blue sky",
    rf"({'|'.join(COLOURS)}) letters",
    rf"text  in ({'|'.join(COLOURS)})\b",
)


def captions_of(scene: Scene, index: int) -> list[Caption]:
    return [make(scene, generator((index, turn))) for turn in range(3) for make in (short_caption, long_caption)]


def middle(mask: np.ndarray) -> np.ndarray:
    return np.array([axis.mean() for axis in np.nonzero(mask)[::-1]])


def without(scene: Scene, index: int) -> Scene:
    """The scene with one thing, which has no children, shrunk to a point."""
    thing = scene.objects[index]
    gone = replace(thing, pose=replace(thing.pose, scale=1e-4))
    return replace(scene, objects=(*scene.objects[:index], gone, *scene.objects[index + 1 :]))


def relation_holds(scene: Scene, rendered: Rendered, i: int, name: str, j: int) -> bool:
    """A relation read from masks alone."""
    first, second = rendered.masks[i], rendered.masks[j]
    (x1, y1), (x2, y2) = middle(first), middle(second)
    rows, columns = ([np.nonzero(mask.any(axis))[0] for mask in (first, second)] for axis in (1, 0))
    if name in ("left of", "right of"):
        (a, b) = columns if name == "left of" else columns[::-1]
        return bool(a.max() <= b.min() + 2) and (x1 < x2) == (name == "left of")
    if name in ("above", "below"):
        (a, b) = rows if name == "above" else rows[::-1]
        return bool(a.max() <= b.min() + 4) and (y1 < y2) == (name == "above")
    if name == "on top of":
        return abs(int(rows[0].max()) - int(rows[1].min())) <= 4 and columns[1].min() <= x1 <= columns[1].max()
    if name == "inside":
        hull = rows[1].min() <= rows[0].min() <= rows[0].max() <= rows[1].max()
        return bool(hull) and bool(columns[1].min() <= columns[0].min() <= columns[0].max() <= columns[1].max())
    front, back = (i, j) if name == "in front of" else (j, i)
    whole = render(without(scene, front), 128).masks[back]
    return bool((whole & rendered.masks[front]).sum() > 10)


def test_every_relation_is_true_of_the_masks() -> None:
    said: dict[str, int] = dict.fromkeys(RELATION_WORDS, 0)
    for index, scene in enumerate(SCENES):
        rendered = render(scene, 128)
        claims = {claim for caption in captions_of(scene, index) for claim in caption.claims}
        for claim in sorted((one for one in claims if one.aspect == "relation"), key=str):
            assert claim.other is not None
            assert relation_holds(scene, rendered, claim.subjects[0], claim.value, claim.other), claim
            said[claim.value] += 1
    assert min(said.values()) >= 2, said


@pytest.mark.parametrize("size", [(160, 80), (80, 160)])
def test_relations_stay_true_at_other_aspects(size: tuple[int, int]) -> None:
    for index, scene in enumerate(SCENES[:40]):
        rendered = render(scene, size)
        for claim in (claim for caption in captions_of(scene, index) for claim in caption.claims):
            if claim.aspect == "relation" and claim.value not in ("in front of", "behind"):
                assert claim.other is not None
                assert relation_holds(scene, rendered, claim.subjects[0], claim.value, claim.other), claim


def test_counts_looks_and_places_are_true() -> None:
    for index, scene in enumerate(SCENES):
        rendered = render(scene, 96)
        for caption in captions_of(scene, index):
            for claim in caption.claims:
                check(scene, rendered, claim)
            counted = [i for claim in caption.claims if claim.aspect == "count" for i in claim.subjects]
            assert sorted(counted) == list(range(len(scene.objects))), caption.text


def check(scene: Scene, rendered: Rendered, claim: Claim) -> None:
    things = [scene.objects[index] for index in claim.subjects]
    if claim.aspect == "count":
        assert len(things) == int(claim.value)
        assert len({(thing.kind, thing.colour, thing.texture) for thing in things}) == 1
    elif claim.aspect in ("kind", "colour", "texture", "size"):
        assert {getattr(thing, claim.aspect) for thing in things} == {claim.value}
    elif claim.aspect == "place":
        left, top, right, bottom = rendered.boxes[claim.subjects[0]] / 96
        x, y = (left + right) / 2, (top + bottom) / 2
        assert ("left" in claim.value) == (x < 0.4)
        assert ("right" in claim.value) == (x > 0.6)
        assert ("top" in claim.value) == (y < 0.4)
        assert ("bottom" in claim.value) == (y > 0.6)
    elif claim.aspect == "text":
        assert scene.text is not None
        assert scene.text.word == claim.value
    elif claim.aspect == "background":
        assert claim.value.startswith(scene.background.colour or scene.background.kind)


def test_the_words_are_those_of_the_claims() -> None:
    nouns = {word: name for name, kind in KINDS.items() for word in (name, kind.plural)}
    pattern = re.compile(r"\b(" + "|".join(sorted(map(re.escape, nouns), key=len, reverse=True)) + r")\b")
    textures = {word: name for name, words in TEXTURE_WORDS.items() for word in words}
    for index, scene in enumerate(SCENES):
        for caption in captions_of(scene, index):
            text = re.sub(r'"[A-Z]+"', "", caption.text).lower()
            for words in _OTHER_COLOURS:
                text = re.sub(words, "", text)
            said = {claim.value for claim in caption.claims}
            assert {nouns[word] for word in pattern.findall(text)} == {
                claim.value for claim in caption.claims if claim.aspect == "kind"
            }, caption.text
            assert {c for c in COLOURS if re.search(rf"\b{c}\b", text)} <= said, caption.text
            assert {name for word, name in textures.items() if re.search(rf"\b{word}\b", text)} <= said, caption.text
            for claim in caption.claims:
                if claim.aspect == "count" and len(claim.subjects) > 1:
                    assert f"{NUMBERS[int(claim.value)]} " in text
                if claim.aspect == "relation":
                    assert any(words in text for words in RELATION_WORDS[claim.value])


def test_captions_vary_and_read_well() -> None:
    scene = SCENES[0]
    texts = {short_caption(scene, generator(seed)).text for seed in range(30)}
    assert len(texts) >= 6
    assert short_caption(scene, generator(1)) == short_caption(scene, generator(1))
    for index, scene in enumerate(SCENES):
        for caption in captions_of(scene, index):
            assert not re.search(r"\ba [aeio]|\ban [^aeiou]|  | \.|\.\.|\{|\bNone\b| ,", caption.text), caption.text
            assert "medium" not in caption.text
        long = long_caption(scene, generator(index)).text
        assert long.endswith(".")
        assert long[0].isupper()


def test_things_of_one_kind_are_told_apart() -> None:
    red = SceneObject("star", "red", "plain", "medium", Pose(0.25, 0.5, 0.17))
    blue = SceneObject("star", "blue", "striped", "medium", Pose(0.75, 0.5, 0.17))
    scene = Scene((red, blue), Background("plain", "white"))
    for seed in range(20):
        for make in (short_caption, long_caption):
            caption = make(scene, generator(seed))
            assert re.search("red star", caption.text, re.IGNORECASE)
            assert re.search("blue star", caption.text, re.IGNORECASE)


def test_a_scene_of_nothing_or_of_a_word_has_captions() -> None:
    nothing, word = Scene(()), Scene((), text=SceneText("TEA", "green", "center"))
    assert "white background" in long_caption(nothing, generator(0)).text
    assert "white background" in short_caption(nothing, generator(0)).text
    for seed in range(5):
        assert '"TEA"' in short_caption(word, generator(seed)).text
        assert '"TEA"' in long_caption(word, generator(seed)).text
