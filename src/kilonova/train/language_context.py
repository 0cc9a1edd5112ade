"""What the parts of a run that trains a language model share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kilonova.data.mixture import build_rows
from kilonova.data.packing import RowDataset
from kilonova.data.sources import Source
from kilonova.data.tokens import TokenizedSource, tokenize_source, tokenizer_fingerprint
from kilonova.models.adapter import save_adapter
from kilonova.models.decoder.model import Decoder
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.batches import StepBatches
from kilonova.train.context import RunContext
from kilonova.train.objective import Objective

if TYPE_CHECKING:
    from kilonova.train.recipe import TrainRecipe

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True, kw_only=True)
class LanguageContext(RunContext):
    """A run's context with its tokenizer."""

    recipe: TrainRecipe
    tokenizer: Tokenizer
    tokenizer_directory: Path

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

    def export(self, objective: Objective, directory: Path) -> None:
        """Write the model, or its adapter alone, with the tokenizer."""
        recipe = self.recipe
        if recipe.adapter is None or recipe.adapter.merge:
            objective.export(directory)
        else:
            decoder = next(module for module in objective.trained.modules() if isinstance(module, Decoder))
            save_adapter(decoder, directory, str(recipe.model.init_from), getattr(torch, recipe.save_dtype))
        for file in _TOKENIZER_FILES:
            if (self.tokenizer_directory / file).exists():
                shutil.copyfile(self.tokenizer_directory / file, directory / file)

    def record(self, objective: Objective) -> dict[str, Any]:
        """The length of rows, what of the model was trained, and the run before this one."""
        recipe, record = self.recipe, {"sequence_length": self.recipe.data.sequence_length, "earlier": self._earlier()}
        if recipe.adapter is not None:
            trained = sum(parameter.numel() for parameter in objective.trained.parameters() if parameter.requires_grad)
            record |= {"adapter": asdict(recipe.adapter), "trained_parameters": trained}
        return record

    def _earlier(self) -> dict[str, Any] | None:
        if self.recipe.model.init_from is None:
            return None
        path = Path(self.recipe.model.init_from) / "training.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
