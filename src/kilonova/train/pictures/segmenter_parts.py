"""The networks and the pictures that a run of training a segmenter starts from."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kilonova.core.errors import ConfigError
from kilonova.data.pictures.segment_dolls import DollSegments
from kilonova.data.pictures.segment_icons import IconSegments
from kilonova.data.pictures.segment_scenes import WorldSegments
from kilonova.data.pictures.segments import Form, SegmentBatches, Segments, SegmentSample, first_samples
from kilonova.data.pictures.segments_ahead import BatchesAhead
from kilonova.data.pictures.sources import ParquetPictures, PictureSource
from kilonova.models.components import load_folder
from kilonova.models.segmenter.config import MixedQuerySegmenterConfig
from kilonova.models.segmenter.model import MixedQuerySegmenter
from kilonova.models.segmenter.texts import Questions
from kilonova.models.text_encoder.config import TextTransformerConfig
from kilonova.models.text_encoder.model import TextTransformer
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.averaging import WeightAverage
from kilonova.train.context import RunContext
from kilonova.train.pictures.segmenter_recipe import SegmenterRecipe

_FORMS: tuple[Form, ...] = ("phrase", "names")


class SegmenterModel(nn.Module):
    """What a run trains together: the segmenter and its text encoder, and beside them their average."""

    def __init__(self, segmenter: MixedQuerySegmenter, text_encoder: TextTransformer, ema_decay: float) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.text_encoder = text_encoder
        self.average = WeightAverage(self, ema_decay)


@dataclass(frozen=True, kw_only=True)
class SegmenterContext(RunContext):
    """A run's context with the pictures that its recipe names."""

    recipe: SegmenterRecipe

    def batches(self) -> SegmentBatches | BatchesAhead:
        """The recipe's micro-batches for this rank."""
        recipe = self.recipe
        batches = SegmentBatches(
            self._training_sources(),
            recipe.pictures.sizes,
            recipe.batch_size,
            recipe.micro_batch_size,
            recipe.seed,
            rank=self.rank,
            num_ranks=self.num_ranks,
        )
        workers = recipe.pictures.workers
        return BatchesAhead(batches, workers) if workers else batches

    def validation_samples(self) -> dict[str, dict[Form, list[SegmentSample]]]:
        """The first samples of each validation source, by its name and by how they are asked, at the first size."""
        pictures = self.recipe.pictures
        sources: list[Segments] = [
            *self._icons(pictures.validation_icons),
            *(WorldSegments(source, pictures.held_out_names) for source in pictures.validation_worlds),
            *(WorldSegments(source, pictures.held_out_names, ask_held_out=True) for source in pictures.unseen_worlds),
            *(DollSegments(source) for source in pictures.validation_dolls),
        ]
        count = pictures.validation_pictures
        return {
            source.name: {form: first_samples(source, pictures.sizes[0], count, form) for form in _FORMS}
            for source in sources
        }

    def autocast(self) -> AbstractContextManager[object]:
        """The number format of the run, for the arithmetic of networks."""
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)

    def pictures_record(self) -> dict[str, Any]:
        """Sizes of pictures, names that were held out, and the sources, for the model card."""
        pictures = self.recipe.pictures
        return {
            "sizes": [list(size) for size in pictures.sizes],
            "held_out_names": list(pictures.held_out_names),
            "sources": [*map(asdict, pictures.icons), *map(asdict, pictures.worlds), *map(asdict, pictures.dolls)],
        }

    def _training_sources(self) -> list[Segments]:
        pictures = self.recipe.pictures
        return [
            *self._icons(pictures.icons),
            *(WorldSegments(source, pictures.held_out_names) for source in pictures.worlds),
            *(DollSegments(source) for source in pictures.dolls),
        ]

    def _icons(self, sources: Iterable[PictureSource]) -> list[Segments]:
        pictures = self.recipe.pictures
        return [IconSegments(ParquetPictures(source, pictures.root), pictures.held_out_names) for source in sources]


def starting_parts(recipe: SegmenterRecipe) -> tuple[MixedQuerySegmenter, TextTransformer, Tokenizer]:
    """What the recipe names, in float32 on the CPU, fresh networks drawn with its seed.

    ConfigError for parts that are missing, or that do not fit each other.
    """
    section = recipe.segmenter
    if recipe.model.init_from is not None:
        found = load_folder(recipe.model.init_from, dtype=torch.float32)
        segmenter, text_encoder, tokenizer = map(found.get, ("segmenter", "text_encoder", "tokenizer"))
        if not (
            isinstance(segmenter, MixedQuerySegmenter)
            and isinstance(text_encoder, TextTransformer)
            and isinstance(tokenizer, Tokenizer)
        ):
            raise ConfigError(
                f"model.init_from: {recipe.model.init_from} lacks a segmenter, a text_encoder or a tokenizer"
            )
        return segmenter.train(), text_encoder.train(), tokenizer
    generator = torch.Generator().manual_seed(recipe.seed)
    tokenizer = Tokenizer.from_directory(section.tokenizer or "")
    segmenter = MixedQuerySegmenter(MixedQuerySegmenterConfig.from_dict(recipe.model.config or {}))
    shape = {"vocab_size": tokenizer.vocab_size, "hidden_size": segmenter.config.text_hidden_size}
    text_encoder = TextTransformer(TextTransformerConfig.from_dict({**shape, **section.text_encoder}))
    if text_encoder.config.hidden_size != segmenter.config.text_hidden_size:
        raise ConfigError(
            f"segmenter.text_encoder.hidden_size: {text_encoder.config.hidden_size}, but model.config.text_hidden_size "
            f"is {segmenter.config.text_hidden_size}"
        )
    segmenter.init_weights(generator)
    text_encoder.init_weights(generator)
    return segmenter, text_encoder, tokenizer


def forward_flops(config: MixedQuerySegmenterConfig, height: int, width: int, num_texts: int, num_tokens: int) -> int:
    """Floating-point operations, two a multiply-add, of the answers for one `height` x `width` picture."""
    with torch.device("meta"):
        model = MixedQuerySegmenter(config).to("meta").requires_grad_(False)
        states = torch.empty(1, num_tokens, config.text_hidden_size)
        membership = torch.ones(1, num_texts, num_tokens, dtype=torch.bool)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, height, width), Questions(states, membership))
    return counter.get_total_flops()
