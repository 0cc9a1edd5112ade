"""What the parts of a run share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kilonova.data.packing import ConcatenatedRows, PackedRows, RowDataset
from kilonova.data.sources import Source
from kilonova.data.tokens import TokenizedSource, tokenize_source, tokenizer_fingerprint
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.batches import StepBatches

if TYPE_CHECKING:
    from kilonova.train.recipe import TrainRecipe


@dataclass(frozen=True)
class RunContext:
    """A recipe with its tokenizer, the device and number format of its arithmetic, and its place among the ranks.

    `rank` and `num_ranks` count data-parallel ranks: those that read different rows.
    """

    recipe: TrainRecipe
    tokenizer: Tokenizer
    tokenizer_directory: Path
    device: torch.device
    dtype: torch.dtype
    rank: int = 0
    num_ranks: int = 1

    def tokenized(self, source: Source) -> TokenizedSource:
        """The source's token ids, from the recipe's cache when it was tokenized before."""
        data = self.recipe.data
        fingerprint = tokenizer_fingerprint(self.tokenizer_directory)
        return tokenize_source(source, data.root, self.tokenizer, fingerprint, data.cache)

    def rows(self, sources: Iterable[Source], *, whole_documents: bool) -> RowDataset:
        """Rows of the recipe's length from a mixture of sources, of whole documents or cut end to end."""
        sources = tuple(sources)
        kind = PackedRows if whole_documents else ConcatenatedRows
        tokenized = [self.tokenized(source) for source in sources]
        weights = [source.weight for source in sources]
        return kind(tokenized, weights, self.recipe.data.sequence_length, self.recipe.seed)

    def batches(self, rows: RowDataset) -> StepBatches:
        """The recipe's micro-batches of `rows` for this rank."""
        recipe = self.recipe
        return StepBatches(
            rows, recipe.batch_size, recipe.micro_batch_size, recipe.seed, rank=self.rank, num_ranks=self.num_ranks
        )

    def sources_record(self) -> list[dict[str, Any]]:
        """The recipe's sources and their sizes, for the model card."""
        record = []
        for source in self.recipe.data.sources:
            tokens = self.tokenized(source)
            size = {"tokens": len(tokens.tokens), "documents": len(tokens.offsets) - 1, "bytes": tokens.num_bytes}
            record.append(asdict(source) | size)
        return record
