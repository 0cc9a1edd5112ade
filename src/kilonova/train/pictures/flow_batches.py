"""What a step of training a flow sees, and draws for each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kilonova.data.pictures.batches import Place
from kilonova.data.pictures.examples import draw_example
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.studio.flow import resolution_shift, sample_timesteps
from kilonova.train.pictures.conditions import Given, Prepared, collate, prepare
from kilonova.train.pictures.context import PictureContext
from kilonova.train.pictures.latents import LatentCache, draw_view, views_at

_SPATIAL_FACTOR = 8
# The largest steps of a shortcut are 1, 1/2 ... 1/64, each learnt from two of half of it (arXiv 2410.12557, section 3).
_SHORTCUT_SIZES = 7


@dataclass(frozen=True, eq=False)
class FlowBatch:
    """Pictures with what a step draws for each: a caption or none, a time `[B]`, the seed of its noise, and the size
    `[B]` of the step that is to be learnt, 0 for the direction at that time."""

    given: Given
    captions: list[str]
    timesteps: Tensor
    noise_seeds: list[int]
    step_sizes: Tensor


class FlowBatches:
    """The micro-batches of every step for this rank: a function of the recipe and the step alone.

    What is drawn for a picture depends on its place in the step, not on ranks or micro-batches. Pictures whose
    conditions make sequences of one length come together, as none should be padded to the longest of a step; so a step
    has more micro-batches than its size asks for, and they are of several sizes.
    """

    def __init__(self, context: PictureContext, base_positions: int, autoencoder: ImageAutoencoder) -> None:
        self._context, self._section = context, context.recipe.flow
        self._base_positions = base_positions
        self._pictures = context.batches()
        self._cache = None
        if self._section.cache is not None:
            self._cache = LatentCache(context, self._pictures.sources, autoencoder)

    def __call__(self, step: int) -> list[FlowBatch]:
        recipe, section = self._context.recipe, self._section
        size, places = self._pictures.places(step)
        examples = [self.example(place, size) for place in places]
        count = recipe.batch_size
        generator = _generator(recipe.seed, step)
        shift = resolution_shift(size[0] * size[1] // _SPATIAL_FACTOR**2, self._base_positions)
        timesteps = sample_timesteps(
            count, generator, mean=section.timestep_mean, std=section.timestep_std, shift=section.timestep_shift * shift
        )
        dropped = torch.rand(count, generator=generator) < section.text_dropout
        seeds = torch.randint(2**62, (count,), generator=generator)
        step_sizes = torch.zeros(count)
        if section.shortcut:
            timesteps, step_sizes = _with_shortcuts(timesteps, section.shortcut, generator)
        share = slice(self._context.rank, None, self._context.num_ranks)
        mine = [tensor[share] for tensor in (timesteps, dropped, seeds, step_sizes)]
        return [
            self._batch([examples[index] for index in group], *(tensor[group] for tensor in mine))
            for group in self._groups(examples)
        ]

    def example(self, place: Place, size: tuple[int, int]) -> Prepared:
        """The picture at a place of the run, at `size` (width, height)."""
        section = self._section
        generator = self._pictures.generator(place)
        if section.views is None:
            return prepare(
                draw_example(self._pictures.sources[place.number], place.index, size, section.conditions, generator)
            )
        row = (place.number, place.index, int(generator.integers(views_at(size, self._context.recipe))))
        if self._cache is not None:
            return self._cache.example(row, size)
        return draw_view(self._pictures.sources[place.number], row, size, section.conditions, self._context.recipe.seed)

    def _groups(self, examples: Sequence[Prepared]) -> list[list[int]]:
        size = self._context.recipe.micro_batch_size
        groups: dict[tuple[bool, int, bool], list[int]] = {}
        for index, example in enumerate(examples):
            groups.setdefault(example.parts, []).append(index)
        return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]

    def _batch(
        self, examples: Sequence[Prepared], timesteps: Tensor, dropped: Tensor, seeds: Tensor, step_sizes: Tensor
    ) -> FlowBatch:
        captions = [
            "" if drop and not example.needs_caption else example.caption
            for example, drop in zip(examples, dropped.tolist(), strict=True)
        ]
        return FlowBatch(collate(examples), captions, timesteps, seeds.tolist(), step_sizes)


def fixed_batch(pictures: Sequence[tuple[np.ndarray, str]]) -> FlowBatch:
    """A batch for evaluation: pictures uint8 `[H, W, 4]` with words alone, times spread evenly, the same noise ever."""
    no_colours = np.zeros((0, 3), np.float32)
    examples = [Prepared(pictures=picture[None], caption=caption, palette=no_colours) for picture, caption in pictures]
    count = len(examples)
    timesteps = (torch.arange(count) + 0.5) / count
    captions = [example.caption for example in examples]
    return FlowBatch(collate(examples), captions, timesteps, list(range(count)), torch.zeros(count))


def _with_shortcuts(timesteps: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Times and step sizes of which a `share` is of shortcuts; those begin at a multiple of their size."""
    count = len(timesteps)
    chosen = torch.rand(count, generator=generator) < share
    sizes = 0.5 ** torch.randint(_SHORTCUT_SIZES, (count,), generator=generator)
    steps = torch.floor(torch.rand(count, generator=generator, dtype=torch.float64) / sizes) + 1
    return torch.where(chosen, (steps * sizes).float(), timesteps), torch.where(chosen, sizes, 0.0)


def _generator(*key: int) -> torch.Generator:
    """A generator of its own for each key."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
