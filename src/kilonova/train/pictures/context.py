"""What the parts of a run that trains a model of pictures share."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch

from kilonova.data.pictures.batches import PictureBatch, PictureBatches, Pictures, first_pictures, to_batch
from kilonova.data.pictures.sources import ParquetPictures, PictureSource
from kilonova.data.pictures.world import WorldPictures, WorldSource
from kilonova.train.context import RunContext
from kilonova.train.pictures.recipe import PictureRecipe


@dataclass(frozen=True, kw_only=True)
class PictureContext(RunContext):
    """A run's context with the pictures that its recipe names."""

    recipe: PictureRecipe

    def batches(self) -> PictureBatches:
        """The recipe's micro-batches for this rank."""
        recipe = self.recipe
        return PictureBatches(
            self._read(recipe.pictures.sources, recipe.pictures.worlds),
            recipe.pictures.sizes,
            recipe.batch_size,
            recipe.micro_batch_size,
            recipe.seed,
            rank=self.rank,
            num_ranks=self.num_ranks,
        )

    def validation_batches(self) -> dict[str, list[PictureBatch]]:
        """The first pictures of each validation source, by its name, at the recipe's first size."""
        pictures, size = self.recipe.pictures, self.recipe.micro_batch_size
        result = {}
        for source in self._read(pictures.validation, pictures.validation_worlds):
            found = first_pictures(source, pictures.sizes[0], pictures.validation_pictures)
            parts = [found[start : start + size] for start in range(0, len(found), size)]
            result[source.source.name] = [to_batch(part) for part in parts]
        return result

    def autocast(self) -> AbstractContextManager[object]:
        """The number format of the run, for the arithmetic of networks."""
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)

    def pictures_record(self) -> dict[str, Any]:
        """Sizes of pictures, and the sources with the number of theirs, for the model card."""
        pictures = self.recipe.pictures
        return {
            "sizes": [list(size) for size in pictures.sizes],
            "sources": [
                asdict(source.source) | {"pictures": len(source)}
                for source in self._read(pictures.sources, pictures.worlds)
            ],
        }

    def _read(self, sources: Iterable[PictureSource], worlds: Iterable[WorldSource]) -> list[Pictures]:
        root = self.recipe.pictures.root
        return [
            *(ParquetPictures(source, root) for source in sources),
            *(WorldPictures(source) for source in worlds),
        ]
