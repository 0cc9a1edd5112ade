"""Next-token prediction, for pretraining and supervised fine-tuning alike (they differ in their data)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kilonova.core.types import IGNORE_INDEX
from kilonova.data.packing import Batch
from kilonova.models.checkpoint import save_decoder
from kilonova.train.batches import whole_batches
from kilonova.train.language_context import LanguageContext
from kilonova.train.objective import Loss
from kilonova.train.placed import PlacedDecoder

_MAX_VALIDATION_ROWS = 64


class LanguageModelObjective:
    """Cross-entropy of the next token, in nats, over the positions that carry a label.

    Rows hold `whole_documents`, or sources cut end to end.
    """

    def __init__(self, context: LanguageContext, model: PlacedDecoder, *, whole_documents: bool) -> None:
        recipe = context.recipe
        rows = context.rows(recipe.data.sources, whole_documents=whole_documents, temperature=recipe.data.temperature)
        self.model = model
        self.trained: nn.Module = model.decoder
        self.micro_batches = context.batches(rows)
        self.tokens_per_step = recipe.batch_size * recipe.data.sequence_length
        self.flops_per_token = model.decoder.flops_per_token(recipe.data.sequence_length)
        self._context = context
        self._num_rows = len(rows)
        self._validation = {
            source.name: whole_batches(
                context.rows([source], whole_documents=whole_documents), recipe.micro_batch_size, _MAX_VALIDATION_ROWS
            )
            for source in recipe.data.validation
        }

    def num_items(self, batch: Batch) -> int:
        return int((batch.labels != IGNORE_INDEX).sum())

    def loss(self, batch: Batch) -> Loss:
        return Loss(self._summed_loss(batch))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Mean loss in nats a token on the first rows of each validation source."""
        results = {}
        for name, batches in self._validation.items():
            total = sum(float(self._summed_loss(batch)) for batch in batches)
            if count := sum(map(self.num_items, batches)):
                results[name] = total / count
        return results

    def export(self, directory: Path) -> None:
        save_decoder(self.model.decoder, directory, dtype=getattr(torch, self._context.recipe.save_dtype))

    def data_record(self) -> dict[str, Any]:
        return {"rows_in_one_pass": self._num_rows, "sources": self._context.sources_record()}

    def step_done(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def _summed_loss(self, batch: Batch) -> Tensor:
        return self.model.cross_entropy(batch.to(self.model.device))
