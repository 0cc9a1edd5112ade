"""Training of a classifier of pictures' attributes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kilonova.core.errors import ConfigError
from kilonova.data.pictures.sources import ParquetPictures, PictureSource
from kilonova.data.pictures.world import WorldPictures, WorldSource
from kilonova.models.classifier.config import AttributeClassifierConfig
from kilonova.models.classifier.model import AttributeClassifier
from kilonova.models.components import load_component, save_component
from kilonova.train.objective import Loss
from kilonova.train.pictures.classifier_data import (
    NO_LABEL,
    LabelledBatch,
    LabelledBatches,
    LabelledFiles,
    LabelledScenes,
    LabelledSource,
    to_batch,
    world_heads,
)
from kilonova.train.pictures.context import PictureContext

_PATCH = 8


class ClassifierObjective:
    """The cross-entropy of every attribute that a picture has, summed; the items are pictures.

    A fresh classifier has a head for each of `classifier.columns`, with the values that occur in the training sources,
    and, where the recipe has worlds, one for each attribute of drawn scenes.
    """

    def __init__(self, context: PictureContext) -> None:
        recipe, pictures = context.recipe, context.recipe.pictures
        sources = self._read(context, pictures.sources, pictures.worlds)
        model = _starting_model(context, sources)
        self.trained: nn.Module = model
        self._model, self._context = model.to(context.device), context
        config = model.config
        self.micro_batches = LabelledBatches(
            sources,
            config.heads,
            config.image_size,
            recipe.batch_size,
            recipe.micro_batch_size,
            recipe.seed,
            rank=context.rank,
            num_ranks=context.num_ranks,
        )
        positions = (config.image_size // _PATCH) ** 2
        self.tokens_per_step = recipe.batch_size * positions
        # A backward pass costs twice a forward pass.
        self.flops_per_token = 3 * _forward_flops(config) / positions
        self._logits = torch.compile(self._model) if recipe.compile else self._model
        self._validation = {
            source.source.name: self._validation_batches(source)
            for source in self._read(context, pictures.validation, pictures.validation_worlds)
        }

    def num_items(self, batch: LabelledBatch) -> int:
        return len(batch.pictures)

    def loss(self, batch: LabelledBatch) -> Loss:
        with self._context.autocast():
            logits = self._logits(batch.pictures.to(self._context.device))
        losses = [
            nn.functional.cross_entropy(
                logits[name].float(), labels.to(self._context.device), ignore_index=NO_LABEL, reduction="sum"
            )
            for name, labels in batch.labels.items()
        ]
        return Loss(torch.stack(losses).sum())

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The share of right values of each attribute, on each validation source that has it."""
        results = {}
        for source, batches in self._validation.items():
            right: dict[str, list[Tensor]] = {}
            for batch in batches:
                with self._context.autocast():
                    logits = self._model(batch.pictures.to(self._context.device))
                for name, labels in batch.labels.items():
                    known = labels != NO_LABEL
                    right.setdefault(name, []).append((logits[name].argmax(1).cpu() == labels)[known])
            found = {name: torch.cat(parts).float() for name, parts in right.items()}
            results.update({f"{source} {name}": float(each.mean()) for name, each in found.items() if len(each)})
        return results

    def export(self, directory: Path) -> None:
        """Write the component."""
        save_component(self._model, directory, dtype=getattr(torch, self._context.recipe.save_dtype))

    def step_done(self) -> None:
        pass

    def data_record(self) -> dict[str, Any]:
        return self._context.pictures_record()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def _read(
        self, context: PictureContext, files: Iterable[PictureSource], worlds: Iterable[WorldSource]
    ) -> list[LabelledSource]:
        recipe = context.recipe
        columns, root = recipe.classifier.columns, recipe.pictures.root
        return [
            *(LabelledFiles(ParquetPictures(source, root), columns) for source in files),
            *(LabelledScenes(WorldPictures(source)) for source in worlds),
        ]

    def _validation_batches(self, source: LabelledSource) -> list[LabelledBatch]:
        recipe, config = self._context.recipe, self._model.config
        count, size = min(len(source), recipe.pictures.validation_pictures), recipe.micro_batch_size
        views = [source.view(index, config.image_size, None) for index in range(count)]
        parts = [views[start : start + size] for start in range(0, count, size)]
        return [to_batch(part, config.heads, config.image_size) for part in parts]


def _starting_model(context: PictureContext, sources: list[LabelledSource]) -> AttributeClassifier:
    """The model the recipe starts from, in float32 on the CPU."""
    section = context.recipe.model
    if section.init_from is not None:
        model = load_component(section.init_from, dtype=torch.float32)
        if not isinstance(model, AttributeClassifier):
            raise ConfigError(f"model.init_from: {section.init_from} holds a {type(model).__name__}, no classifier")
        return model.train()
    files = [source for source in sources if isinstance(source, LabelledFiles)]
    rows = [source.labels(index) for source in files for index in range(len(source))]
    heads = {name: tuple(sorted({row[name] for row in rows})) for name in context.recipe.classifier.columns if rows}
    if any(isinstance(source, LabelledScenes) for source in sources):
        heads |= world_heads()
    model = AttributeClassifier(AttributeClassifierConfig.from_dict({"heads": heads, **(section.config or {})}))
    model.init_weights(torch.Generator().manual_seed(context.recipe.seed))
    return model


def _forward_flops(config: AttributeClassifierConfig) -> int:
    """Floating-point operations, two a multiply-add, of one picture's logits."""
    with torch.device("meta"):
        model = AttributeClassifier(config)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, config.image_size, config.image_size))
    return counter.get_total_flops()
