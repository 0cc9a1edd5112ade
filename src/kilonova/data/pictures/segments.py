"""Pictures whose things, and what they are called, are known exactly: what a segmenter learns from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from kilonova.data.mixture import MixtureSampler, mixture_probabilities

Form = Literal["names", "phrase"]
"""How a picture is asked for: names of many things, there or not, or one phrase that fits exactly one thing."""

# What is smaller, in pixels of a picture, is not asked for.
_LEAST_AREA = 24


@dataclass(frozen=True, eq=False)
class SegmentSample:
    """A picture and what is where in it.

    `image` uint8 `[H, W, 3]`; `alpha` float32 `[H, W]`, how much of each pixel is foreground; `masks` bool
    `[N, H, W]`, which may overlap; `texts`, K names or phrases; and `labels` bool `[N, K]`, which of them each mask
    fits. Each mask fits some text; a text may fit no mask.
    """

    image: np.ndarray
    alpha: np.ndarray
    masks: np.ndarray
    texts: tuple[str, ...]
    labels: np.ndarray


class Segments(Protocol):
    """A source of samples: drawn scenes, pictures from files put before grounds, paper dolls."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float:
        """Samples are drawn from the sources in proportion to this times their number."""
        ...

    def __len__(self) -> int: ...

    def sample(
        self, index: int, width: int, height: int, generator: np.random.Generator, form: Form | None = None
    ) -> SegmentSample:
        """A sample, asked for as in training for `form` None."""
        ...


def asked(
    image: np.ndarray, alpha: np.ndarray, masks: Sequence[np.ndarray], texts: Mapping[str, Sequence[int]]
) -> SegmentSample:
    """The sample in which each of `texts` fits those of `masks` whose numbers it gives.

    Masks that no text fits are left out, and so are those too small to be seen. Without texts it is asked for its
    background.
    """
    if not texts:
        texts, masks = {"background": [len(masks)]}, [*masks, alpha < 0.5]
    labels = np.zeros((len(masks), len(texts)), bool)
    for column, fitting in enumerate(texts.values()):
        labels[list(fitting), column] = True
    kept = [number for number, mask in enumerate(masks) if labels[number].any() and mask.sum() >= _LEAST_AREA]
    stacked = np.stack([masks[number] for number in kept]) if kept else np.zeros((0, *alpha.shape), bool)
    return SegmentSample(image, alpha, stacked, tuple(texts), labels[kept])


def mentions(text: str, words: Sequence[str]) -> bool:
    """Whether `text` has any of `words`, or its plain plural, as a word of its own."""
    return any(re.search(rf"\b{re.escape(word)}(e?s)?\b", text, re.IGNORECASE) for word in words)


@dataclass(frozen=True)
class SegmentBatch:
    """Samples of one size, filled up to N masks and K texts.

    `images` float32 `[B, 3, H, W]` in [-1, 1]; `alpha` `[B, H, W]`; `masks` float32 `[B, N, H / 2, W / 2]`, shares of
    each two by two pixels; `texts` of each picture; and `labels` bool `[B, N, K]`, which of them each mask fits, none
    where there is no mask.
    """

    images: Tensor
    alpha: Tensor
    masks: Tensor
    texts: list[tuple[str, ...]]
    labels: Tensor


class SegmentBatches:
    """The micro-batches of every step for one of `num_ranks` data-parallel ranks: a function of seed and step alone.

    A step's `batch_size` pictures have one size, which goes through `sizes` (width, height) in an order drawn by the
    seed.
    """

    def __init__(
        self,
        sources: Sequence[Segments],
        sizes: Sequence[tuple[int, int]],
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self._sources, self._sizes, self._seed = sources, sizes, seed
        self._batch_size, self._micro_batch_size = batch_size, micro_batch_size
        self._share = slice(rank, None, num_ranks)
        counts = [len(source) for source in sources]
        self._ends = np.cumsum(counts)
        probabilities = mixture_probabilities(counts, [source.weight for source in sources], temperature=1.0)
        self._sampler = MixtureSampler(counts, probabilities, batch_size, seed)

    def samples(self, step: int) -> list[SegmentSample]:
        """All of this rank's samples of a step."""
        size = self._sizes[int(np.random.default_rng([self._seed, step]).integers(len(self._sizes)))]
        places = list(enumerate(self._sampler.indices(step), start=step * self._batch_size))[self._share]
        return [self._sample(row, position, size) for position, row in places]

    def batches(self, samples: Sequence[SegmentSample]) -> list[SegmentBatch]:
        """The micro-batches that `samples` make."""
        count = self._micro_batch_size
        return [to_batch(samples[start : start + count]) for start in range(0, len(samples), count)]

    def __call__(self, step: int) -> list[SegmentBatch]:
        return self.batches(self.samples(step))

    def _sample(self, row: int, position: int, size: tuple[int, int]) -> SegmentSample:
        generator = np.random.default_rng([self._seed, 1, position])
        number = int(np.searchsorted(self._ends, row, side="right"))
        source = self._sources[number]
        return source.sample(row - int(self._ends[number]) + len(source), *size, generator)


def first_samples(source: Segments, size: tuple[int, int], count: int, form: Form) -> list[SegmentSample]:
    """The first samples of a source, the same for every call, for evaluation."""
    return [
        source.sample(index, *size, np.random.default_rng([0, index]), form) for index in range(min(count, len(source)))
    ]


def to_batch(samples: Sequence[SegmentSample]) -> SegmentBatch:
    """Samples of one size, whose sides are even, as a batch."""
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2)
    things = max(1, *(len(sample.masks) for sample in samples))
    texts = max(len(sample.texts) for sample in samples)
    masks = np.zeros((len(samples), things, *samples[0].alpha.shape), bool)
    labels = np.zeros((len(samples), things, texts), bool)
    for number, sample in enumerate(samples):
        masks[number, : len(sample.masks)] = sample.masks
        labels[number, : len(sample.masks), : len(sample.texts)] = sample.labels
    return SegmentBatch(
        images=(images.float() / 127.5 - 1).contiguous(),
        alpha=torch.from_numpy(np.stack([sample.alpha for sample in samples])),
        masks=torch.nn.functional.avg_pool2d(torch.from_numpy(masks).float(), 2),
        texts=[sample.texts for sample in samples],
        labels=torch.from_numpy(labels),
    )
