"""Samples for segmenters: pictures, masks and what they are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from kilonova.data.pictures.dolls import DollSource
from kilonova.data.pictures.segment_dolls import DollSegments
from kilonova.data.pictures.segment_icons import IconSegments, ground
from kilonova.data.pictures.segment_scenes import WorldSegments
from kilonova.data.pictures.segments import SegmentBatches, Segments, SegmentSample, asked, first_samples, mentions
from kilonova.data.pictures.segments_ahead import BatchesAhead
from kilonova.data.pictures.sources import ParquetPictures, PictureSource
from kilonova.data.pictures.world import WorldSource
from kilonova.data.world.colours import COLOURS
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.sampling import SceneConfig, sample_scene

SIZE = (40, 32)
HELD_OUT = ("star", "fish", "house", "box", "circle", "tree", "cup", "heart")


def icons(discs: Path, held_out_names: tuple[str, ...] = ()) -> IconSegments:
    source = PictureSource(name="discs", path=discs.name, captions=("{name} disc", "{name}, {keywords}"))
    return IconSegments(ParquetPictures(source, discs.parent), held_out_names)


def drawn(source: Segments, count: int = 25) -> list[SegmentSample]:
    return [source.sample(index % len(source), *SIZE, np.random.default_rng(index)) for index in range(count)]


def check(sample: SegmentSample) -> None:
    count, texts = len(sample.masks), len(sample.texts)
    assert sample.image.shape == (32, 40, 3)
    assert sample.image.dtype == np.uint8
    assert sample.alpha.shape == (32, 40)
    assert 0 <= sample.alpha.min() <= sample.alpha.max() <= 1
    assert sample.masks.shape == (count, 32, 40)
    assert sample.labels.shape == (count, texts)
    assert texts == len(set(sample.texts)) > 0
    assert sample.labels.any(1).all()
    assert all(mask.any() for mask in sample.masks)


def test_scenes_are_asked_for_in_many_ways_and_rightly() -> None:
    scenes = WorldSegments(WorldSource(scenes=25, sampling=SceneConfig(task="colour_binding")))
    present = absent = 0
    for index, sample in enumerate(drawn(scenes)):
        check(sample)
        things = sample_scene((0, index), SceneConfig(task="colour_binding")).objects
        for number, text in enumerate(sample.texts):
            masks = sample.masks[sample.labels[:, number]]
            words = text.removeprefix("the ").split()
            if text in KINDS:
                assert len(masks) == [thing.kind for thing in things].count(text)
            if len(words) == 2 and words[0] in COLOURS and words[1] in (*KINDS, "object", "thing"):
                fitting = [t for t in things if t.colour == words[0] and words[1] in (t.kind, "object", "thing")]
                assert len(masks) == len(fitting)
                present += bool(fitting)
            absent += not len(masks)
    assert present > 8
    assert absent > 20


def test_masks_are_of_what_the_texts_say() -> None:
    scenes = WorldSegments(WorldSource(scenes=25, sampling=SceneConfig(task="colour_binding")))
    checked = 0
    for index, sample in enumerate(first_samples(scenes, (96, 96), 25, "phrase")):
        assert len(sample.texts) == 1
        things = sample_scene((0, index), SceneConfig(task="colour_binding")).objects
        named = [thing for thing in things if mentions(sample.texts[0], (thing.kind,))]
        if len(sample.masks) == 1 and len(named) == 1:
            rows, columns = np.nonzero(sample.masks[0])
            middle = np.array([columns.min() + columns.max() + 1, rows.min() + rows.max() + 1]) / 2 / 96
            assert np.abs(middle - (named[0].pose.x, named[0].pose.y)).max() < 0.06
            checked += 1
    assert checked > 5


def test_held_out_names_are_never_said_in_training_and_always_when_asked_for() -> None:
    known = WorldSegments(WorldSource(scenes=40), HELD_OUT)
    texts = [text for sample in drawn(known, 40) for text in sample.texts]
    assert not [text for text in texts if mentions(text, HELD_OUT)]
    assert any(set(HELD_OUT) & {t.kind for t in sample_scene((0, index)).objects} for index in range(40))
    unseen = WorldSegments(WorldSource(scenes=10), HELD_OUT, ask_held_out=True)
    for sample in first_samples(unseen, SIZE, 10, "phrase"):
        check(sample)
        assert mentions(sample.texts[0], HELD_OUT)


def test_words_are_found_whole_and_in_the_plural() -> None:
    assert mentions("the red Box", ["box"])
    assert mentions("two boxes", ["box"])
    assert not mentions("the boxer", ["box"])
    assert mentions("an ice cream cone", ["ice cream cone"])


def test_icons_stand_before_grounds_with_their_transparency_as_truth(discs: Path) -> None:
    source = icons(discs)
    samples = drawn(source, 40)
    counts = set()
    for sample in samples:
        check(sample)
        things = sample.labels[:, [text != "background" for text in sample.texts]].any(1)
        assert ((sample.alpha >= 0.5) >= sample.masks[things].any(0)).all()
        counts.add(int(things.sum()))
    assert {1, 2, 3} <= counts
    (alone,) = first_samples(source, SIZE, 1, "phrase")
    assert alone.texts == ("red disc",)
    assert np.array_equal(alone.masks[0], alone.alpha >= 0.5)
    inside = alone.image[alone.alpha == 1]
    assert np.median(inside, axis=0).tolist() == [220, 20, 20]
    named = [text for sample in samples for text in sample.texts]
    assert {"red disc", "the green disc"} <= set(named)
    assert {"round", "the round"} & set(named)


def test_icons_may_share_a_name_and_may_lack_one(discs: Path) -> None:
    assert icons(discs).names(0) == ["red disc", "red", "round", "disc"]
    assert icons(discs, ("disc", "round")).names(0) == ["red"]
    nameless = icons(discs, ("disc", "round", "red", "green", "blue"))
    assert all(set(sample.texts) == {"background"} for sample in drawn(nameless, 5))
    shared = [
        sample.labels[:, number].sum()
        for sample in drawn(icons(discs), 60)
        for number, text in enumerate(sample.texts)
        if text.removeprefix("the ") == "round"
    ]
    assert max(shared) > 1


def test_grounds_vary() -> None:
    generator = np.random.default_rng(0)
    grounds = [ground(24, 16, generator) for _ in range(30)]
    assert all(each.shape == (16, 24, 3) and each.min() >= 0 and each.max() <= 255 for each in grounds)
    assert 2 < sum(float(each.std(axis=(0, 1)).max()) < 1e-3 for each in grounds) < 28


def test_dolls_wear_what_they_are_asked_for() -> None:
    source = DollSegments(DollSource(dolls=30))
    for sample in drawn(source, 10):
        check(sample)
    seen = set()
    for sample in first_samples(source, (64, 64), 20, "names"):
        found = {text: sample.masks[sample.labels[:, number]] for number, text in enumerate(sample.texts)}
        seen |= {text for text, masks in found.items() if len(masks)}
        if len(found.get("person", ())):
            assert np.array_equal(found["person"][0], sample.alpha == 1)
        if len(found.get("head", ())) and len(found.get("face", ())):
            assert (found["head"][0] >= found["face"][0]).all()
    assert {"shoes", "shirt", "face", "person", "trousers"} <= seen
    assert all(len(sample.texts) == 1 and len(sample.masks) for sample in first_samples(source, (64, 64), 8, "phrase"))


def test_what_is_too_small_or_has_no_name_is_left_out() -> None:
    masks = np.zeros((3, 8, 8), bool)
    masks[0] = True
    masks[1, 0, :3] = True
    sample = asked(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.float32), list(masks), {"a": [0, 1], "b": []})
    assert len(sample.masks) == 1
    assert sample.labels.tolist() == [[True, False]]


def test_a_step_is_a_function_of_seed_and_step_and_ranks_share_it(discs: Path) -> None:
    sources: list[Segments] = [icons(discs), WorldSegments(WorldSource(scenes=6))]

    def batches(**options: int) -> SegmentBatches:
        return SegmentBatches(sources, [SIZE, (32, 32)], 4, 2, seed=4, **options)

    used, fresh = batches(), batches()
    for step in range(3):
        used(step)
    whole = fresh(3)
    for mine, other in zip(used(3), whole, strict=True):
        assert torch.equal(mine.images, other.images)
        assert mine.texts == other.texts
    half = batches(rank=1, num_ranks=2)(3)
    assert half[0].texts == [whole[0].texts[1], whole[1].texts[1]]
    assert not torch.equal(used(1)[0].images[..., :1], used(2)[0].images[..., :1])
    (batch, _) = whole
    assert batch.images.min() >= -1
    assert batch.masks.shape[2:] == (batch.alpha.shape[1] // 2, batch.alpha.shape[2] // 2)
    for number, sample in enumerate(fresh.samples(3)[:2]):
        count, height, width = sample.masks.shape
        shares = sample.masks.reshape(count, height // 2, 2, width // 2, 2).mean((2, 4))
        np.testing.assert_allclose(batch.masks[number, :count], shares)
        assert np.array_equal(batch.labels[number, :count, : len(sample.texts)], sample.labels)
        assert batch.labels[number].sum() == sample.labels.sum()


def test_other_processes_draw_the_same_in_any_order() -> None:
    batches = SegmentBatches([WorldSegments(WorldSource(scenes=6))], [(16, 16)], 2, 1, seed=4)
    ahead = BatchesAhead(batches, 1)
    for step in (0, 1, 7, 2):
        for mine, other in zip(ahead(step), batches(step), strict=True):
            assert torch.equal(mine.images, other.images)
            assert torch.equal(mine.masks, other.masks)
            assert mine.texts == other.texts
