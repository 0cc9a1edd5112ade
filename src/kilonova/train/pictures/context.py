"""What the parts of a run that trains a model of pictures share."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from kilonova.data.pictures.batches import PictureBatch, PictureBatches, Pictures, first_pictures, to_batch
from kilonova.data.pictures.dolls import DollPictures, DollSource
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
            self.sources(),
            recipe.pictures.sizes,
            recipe.batch_size,
            recipe.micro_batch_size,
            recipe.seed,
            rank=self.rank,
            num_ranks=self.num_ranks,
        )

    def sources(self) -> list[Pictures]:
        """All that is learnt from, in the order of the recipe."""
        pictures = self.recipe.pictures
        return self._read(pictures.sources, pictures.worlds, pictures.dolls)

    def validation_pictures(self) -> dict[str, list[tuple[np.ndarray, str]]]:
        """The first pictures of each validation source, by its name, at the recipe's first size."""
        pictures = self.recipe.pictures
        return {
            source.source.name: first_pictures(source, pictures.sizes[0], pictures.validation_pictures)
            for source in self._read(pictures.validation, pictures.validation_worlds)
        }

    def validation_batches(self) -> dict[str, list[PictureBatch]]:
        """`validation_pictures` as micro-batches."""
        size = self.recipe.micro_batch_size
        return {
            name: [to_batch(found[start : start + size]) for start in range(0, len(found), size)]
            for name, found in self.validation_pictures().items()
        }

    def autocast(self) -> AbstractContextManager[object]:
        """The number format of the run, for the arithmetic of networks."""
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)

    def pictures_record(self) -> dict[str, Any]:
        """Sizes of pictures, and the sources with the number of theirs, for the model card."""
        pictures = self.recipe.pictures
        return {
            "sizes": [list(size) for size in pictures.sizes],
            "sources": [asdict(source.source) | {"pictures": len(source)} for source in self.sources()],
        }

    def _read(
        self, sources: Iterable[PictureSource], worlds: Iterable[WorldSource], dolls: Iterable[DollSource] = ()
    ) -> list[Pictures]:
        root = self.recipe.pictures.root
        return [
            *(ParquetPictures(source, root) for source in sources),
            *(WorldPictures(source) for source in worlds),
            *(DollPictures(source) for source in dolls),
        ]
