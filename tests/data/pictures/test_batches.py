"""The pictures of a step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kilonova.data.pictures.batches import PictureBatches, first_pictures, to_batch
from kilonova.data.pictures.placement import over_colour, place
from kilonova.data.pictures.sources import ParquetPictures, PictureSource


@pytest.fixture
def pictures(discs: Path) -> ParquetPictures:
    return ParquetPictures(PictureSource(name="discs", path=discs.name, captions=("{style} {name}",)), discs.parent)


def test_a_step_is_the_same_whichever_were_asked_for_before(pictures: ParquetPictures) -> None:
    def batches() -> PictureBatches:
        return PictureBatches([pictures], [(32, 32), (48, 24)], 6, 3, seed=4)

    used, fresh = batches(), batches()
    for step in range(5):
        used(step)
    for mine, other in zip(used(5), fresh(5), strict=True):
        assert torch.equal(mine.images, other.images)
        assert mine.captions == other.captions
    assert not torch.equal(used(5)[0].images, used(6)[0].images)


def test_ranks_share_the_rows_of_a_step(pictures: ParquetPictures) -> None:
    whole = PictureBatches([pictures], [(32, 32)], 6, 6, seed=1)(0)[0]
    parts = [PictureBatches([pictures], [(32, 32)], 6, 3, seed=1, rank=rank, num_ranks=2)(0)[0] for rank in (0, 1)]
    for rank, part in enumerate(parts):
        assert torch.equal(part.images, whole.images[rank::2])
        assert part.captions == whole.captions[rank::2]


def test_a_pass_sees_every_picture_and_all_sizes_occur(pictures: ParquetPictures) -> None:
    batches = PictureBatches([pictures], [(32, 32), (48, 24)], 3, 3, seed=0)
    captions: Counter[str] = Counter()
    shapes = set()
    for step in range(40):
        for batch in batches(step):
            captions.update(" ".join(caption.split()[:2]) for caption in batch.captions)
            shapes.add(tuple(batch.images.shape[1:]))
    assert set(captions.values()) == {20}
    assert shapes == {(4, 32, 32), (4, 24, 48)}


def test_some_pictures_are_opaque_and_some_are_not(pictures: ParquetPictures) -> None:
    images = torch.cat([PictureBatches([pictures], [(32, 32)], 8, 8, seed=0)(step)[0].images for step in range(5)])
    opaque = (images[:, 3].amin((1, 2)) == 1).float().mean()
    assert 0.2 < opaque < 0.8
    assert images.min() >= -1
    assert images.max() <= 1


def test_a_placed_picture_is_whole() -> None:
    picture = Image.new("RGBA", (40, 20), (10, 200, 30, 255))
    in_the_middle = place(picture, 64, 64)
    rows, columns = np.nonzero(in_the_middle[..., 3])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 47, 0, 63)
    for seed in range(20):
        placed = place(picture, 64, 48, np.random.default_rng(seed))
        assert placed.shape == (48, 64, 4)
        visible = placed[..., 3] > 127
        assert 0.45 * 64 * 32 <= visible.sum() <= 64 * 32
        assert (placed[visible][:, :3] == (10, 200, 30)).all()


def test_a_colour_shows_where_a_picture_does_not() -> None:
    picture = np.zeros((1, 3, 4), np.uint8)
    picture[0, 1] = (200, 100, 0, 128)
    picture[0, 2] = (200, 100, 0, 255)
    mixed = over_colour(picture, (0, 0, 255))
    assert mixed[0].tolist() == [[0, 0, 255, 255], [100, 50, 127, 255], [200, 100, 0, 255]]


def test_pictures_for_evaluation_are_as_they_are(pictures: ParquetPictures) -> None:
    found = first_pictures(pictures, (32, 32), 100)
    assert len(found) == 6
    assert np.array_equal(found[1][0], np.asarray(pictures.picture(1)))
    batch = to_batch(found[:2])
    assert batch.captions == ["plain red", "plain green"]
    assert np.array_equal(((batch.images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()[0], found[0][0])
