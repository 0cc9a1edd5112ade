"""What the parts of a run share."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kilonova.data.mixture import build_rows
from kilonova.data.packing import RowDataset
from kilonova.data.sources import Source
from kilonova.data.tokens import TokenizedSource, tokenize_source, tokenizer_fingerprint
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.batches import StepBatches
from kilonova.train.goodput.ledger import Ledger
from kilonova.train.parallel.mesh import ParallelMesh

if TYPE_CHECKING:
    from kilonova.train.recipe import TrainRecipe


@dataclass(frozen=True)
class RunContext:
    """A recipe with its tokenizer, the device and number format of its arithmetic, and its place among the ranks.

    `rank` and `num_ranks` count data-parallel ranks: those that read different rows. `mesh` is None in a process that
    runs alone.
    """

    recipe: TrainRecipe
    tokenizer: Tokenizer
    tokenizer_directory: Path
    device: torch.device
    dtype: torch.dtype
    rank: int = 0
    num_ranks: int = 1
    mesh: ParallelMesh | None = None
    ledger: Ledger = field(default_factory=lambda: Ledger(None))

    def tokenized(self, source: Source) -> TokenizedSource:
        """The source's token ids, from the recipe's cache when it was tokenized before."""
        data = self.recipe.data
        fingerprint = tokenizer_fingerprint(self.tokenizer_directory)
        with nullcontext() if self.mesh is None else self.mesh.main_first():
            return tokenize_source(source, data.root, self.tokenizer, fingerprint, data.cache)

    def rows(self, sources: Iterable[Source], *, whole_documents: bool, temperature: float | None = None) -> RowDataset:
        """Rows of the recipe's length from a mixture of sources, of whole documents or cut end to end."""
        sources = tuple(sources)
        return build_rows(
            [self.tokenized(source) for source in sources],
            [source.weight for source in sources],
            self.recipe.data.sequence_length,
            self.recipe.seed,
            whole_documents=whole_documents,
            temperature=temperature,
        )

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
