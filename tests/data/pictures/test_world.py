"""Drawn scenes as training pictures."""

from __future__ import annotations

import numpy as np
import pytest

from kilonova.core.errors import ConfigError
from kilonova.data.pictures.batches import PictureBatches
from kilonova.data.pictures.world import WorldPictures, WorldSource
from kilonova.data.world.held_out import has_held_out
from kilonova.data.world.sampling import SceneConfig


def test_pictures_and_captions_are_of_one_scene_at_any_size() -> None:
    pictures = WorldPictures(WorldSource(scenes=50, sampling=SceneConfig(task="single_object")))
    assert len(pictures) == 50
    for index in range(5):
        generator = np.random.default_rng(0)
        seen = [pictures.view(index, 40, 24, generator) for _ in range(5)]
        assert seen[0][0].shape == (24, 40, 4)
        assert all(np.array_equal(seen[0][0], picture) for picture, _ in seen)
        kind = pictures.scene(index).objects[0].kind
        assert any(kind.split()[-1] in caption for _, caption in seen)
    first, second = (pictures.whole(index, 40, 24, generator)[0] for index in (0, 1))
    assert not np.array_equal(first, second)


def test_captions_are_as_long_as_they_should_be() -> None:
    def words(share: float) -> float:
        pictures = WorldPictures(WorldSource(scenes=50, long_captions=share))
        generator = np.random.default_rng(0)
        return float(np.mean([len(pictures.view(index, 8, 8, generator)[1].split()) for index in range(50)]))

    assert words(0.0) < 0.6 * words(1.0)


def test_splits_and_seeds_give_other_scenes() -> None:
    train, other, held_out = (
        WorldPictures(WorldSource(scenes=20, seed=seed, sampling=SceneConfig(split=split)))
        for seed, split in ((0, "train"), (1, "train"), (0, "held_out"))
    )
    assert not any(has_held_out(train.scene(index)) for index in range(20))
    assert all(has_held_out(held_out.scene(index)) for index in range(20))
    assert train.scene(3) != other.scene(3)


def test_worlds_and_files_are_drawn_by_weight() -> None:
    sources = [
        WorldPictures(WorldSource(name=name, scenes=1000, weight=weight)) for name, weight in (("a", 3), ("b", 1))
    ]
    sampler = PictureBatches(sources, [(8, 8)], 400, 400, seed=0)._sampler
    assert np.mean([index < 1000 for index in sampler.indices(0)]) == pytest.approx(0.75, abs=0.07)


@pytest.mark.parametrize("wrong", [{"weight": 0}, {"scenes": 0}, {"long_captions": 1.2}])
def test_impossible_sources_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        WorldSource(**wrong)
