"""Which pictures a step sees, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kilonova.data.mixture import MixtureSampler, mixture_probabilities
from kilonova.data.pictures.dolls import DollPictures
from kilonova.data.pictures.sources import ParquetPictures
from kilonova.data.pictures.world import WorldPictures

Pictures = ParquetPictures | WorldPictures | DollPictures


@dataclass(frozen=True)
class PictureBatch:
    """`images` float32 `[B, 4, H, W]`, red, green, blue and alpha in [-1, 1], with a caption each."""

    images: Tensor
    captions: list[str]


@dataclass(frozen=True)
class Place:
    """What stands at a `position` of the run: picture `index` of the source of that `number`."""

    position: int
    number: int
    index: int


class PictureBatches:
    """The micro-batches of every step for one of `num_ranks` data-parallel ranks: a function of seed and step alone.

    A step's `batch_size` pictures have one size, which goes through `sizes` (width, height) in an order drawn by the
    seed.
    """

    def __init__(
        self,
        sources: Sequence[Pictures],
        sizes: Sequence[tuple[int, int]],
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.sources = sources
        self._sizes = sizes
        self._batch_size = batch_size
        self._micro_batch_size = micro_batch_size
        self._seed = seed
        self._share = slice(rank, None, num_ranks)
        self._ends = np.cumsum([len(source) for source in sources])
        counts = [len(source) for source in sources]
        weights = [source.source.weight for source in sources]
        probabilities = mixture_probabilities(counts, weights, temperature=1.0)
        self._sampler = MixtureSampler(counts, probabilities, batch_size, seed)

    def __call__(self, step: int) -> list[PictureBatch]:
        (width, height), places = self.places(step)
        pictures = [
            self.sources[place.number].view(place.index, width, height, self.generator(place)) for place in places
        ]
        size = self._micro_batch_size
        return [to_batch(pictures[start : start + size]) for start in range(0, len(pictures), size)]

    def places(self, step: int) -> tuple[tuple[int, int], list[Place]]:
        """The size (width, height) of a step's pictures, and which this rank reads."""
        size = self._sizes[int(np.random.default_rng([self._seed, step]).integers(len(self._sizes)))]
        first = step * self._batch_size
        rows = list(enumerate(self._sampler.indices(step), start=first))[self._share]
        return size, [self._place(row, position) for position, row in rows]

    def generator(self, place: Place) -> np.random.Generator:
        """What draws how the picture at a place is seen."""
        return np.random.default_rng([self._seed, 1, place.position])

    def _place(self, row: int, position: int) -> Place:
        number = int(np.searchsorted(self._ends, row, side="right"))
        return Place(position, number, row - int(self._ends[number]) + len(self.sources[number]))


def first_pictures(source: Pictures, size: tuple[int, int], count: int) -> list[tuple[np.ndarray, str]]:
    """The first pictures of a source as they are, with their captions, for evaluation."""
    generator = np.random.default_rng(0)
    return [source.whole(index, *size, generator) for index in range(min(count, len(source)))]


def to_batch(pictures: Sequence[tuple[np.ndarray, str]]) -> PictureBatch:
    """Pictures uint8 `[H, W, 4]` of one size, with their captions, as a batch."""
    stacked = torch.from_numpy(np.stack([picture for picture, _ in pictures]))
    images = stacked.permute(0, 3, 1, 2).float() / 127.5 - 1
    return PictureBatch(images.contiguous(), [caption for _, caption in pictures])
