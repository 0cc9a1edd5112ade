"""The preference pairs that a recipe trains on and is measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from kilonova.core.errors import ConfigError
from kilonova.data.packing import EpochSampler
from kilonova.data.preferences import PackedPairs, PairBatch, TokenizedPairs, make_pair_batch, tokenize_pairs
from kilonova.data.sources import Source
from kilonova.data.tokens import tokenizer_fingerprint
from kilonova.evals.metrics import bootstrap_mean
from kilonova.nn.log_probs import sequence_log_probs, token_log_probs
from kilonova.train.language_context import LanguageContext
from kilonova.train.parallel.sharding import fully_sharded_modules
from kilonova.train.placed import PlacedDecoder


class PairData:
    """A recipe's pairs, packed into rows: a mixture to train on, and each validation source by itself."""

    def __init__(self, context: LanguageContext) -> None:
        data = context.recipe.data
        for sources in (data.sources, data.validation):
            if len({source.name for source in sources}) < len(sources):
                raise ConfigError("data: two sources have the same name")
        self._context = context
        self.sources = {source.name: self._tokenized(source) for source in data.sources}
        self.validation = {source.name: self._tokenized(source) for source in data.validation}
        weights = [source.weight for source in data.sources]
        self.rows = PackedPairs(list(self.sources.values()), weights, data.sequence_length, context.recipe.seed)
        self._sampler = EpochSampler(len(self.rows), context.recipe.batch_size, context.recipe.seed)

    def micro_batches(self, step: int) -> list[PairBatch]:
        """This rank's micro-batches of `step`."""
        context = self._context
        rows = self._sampler.indices(step)[context.rank :: context.num_ranks]
        size = context.recipe.micro_batch_size
        return [make_pair_batch(self.rows, rows[start : start + size]) for start in range(0, len(rows), size)]

    def packed(self, pairs: TokenizedPairs) -> PackedPairs:
        """The pairs of one source by themselves."""
        return PackedPairs([pairs], [1.0], self._context.recipe.data.sequence_length, 0)

    def batches(self, rows: PackedPairs) -> Iterator[PairBatch]:
        """All rows in order, in batches of one size: the last one is filled with rows whose pairs are marked absent."""
        size = self._context.recipe.micro_batch_size
        for start in range(0, len(rows), size):
            indices = range(start, min(start + size, len(rows)))
            batch = make_pair_batch(rows, [*indices, *[start] * (size - len(indices))])
            batch.pairs[len(indices) :] = -1
            yield batch

    def record(self) -> dict[str, Any]:
        """What was learnt from, for the model card."""
        record = []
        for source in self._context.recipe.data.sources:
            pairs = self.sources[source.name]
            size = {"tokens": len(pairs.documents.tokens), "pairs": len(pairs), "bytes": pairs.documents.num_bytes}
            record.append(asdict(source) | size | {"left_out": pairs.left_out})
        return {"rows_in_one_pass": len(self.rows), "pairs_too_long": self.rows.num_too_long, "sources": record}

    def _tokenized(self, source: Source) -> TokenizedPairs:
        context = self._context
        fingerprint = tokenizer_fingerprint(context.tokenizer_directory)
        data = context.recipe.data
        with nullcontext() if context.mesh is None else context.mesh.main_first():
            return tokenize_pairs(source, data.root, context.tokenizer, fingerprint, data.cache)


def of_pairs(documents: Tensor, pairs: Tensor) -> Tensor:
    """Values `[B, 2P]` of the documents of a batch as `[N, 2]`: chosen and rejected of each of its `N` pairs."""
    return documents.unflatten(1, (-1, 2))[pairs >= 0]


def completion_lengths(batch: PairBatch) -> Tensor:
    """Tokens of the chosen and the rejected completion of each pair, float32 `[N, 2]`."""
    trained = (batch.rows.labels >= 0).float()
    return of_pairs(sequence_log_probs(trained, batch.rows.document_ids, 2 * batch.pairs.shape[1]), batch.pairs)


def completion_log_probs(model: PlacedDecoder, batch: PairBatch) -> Tensor:
    """Log-probabilities of the chosen and the rejected completion of each pair, float32 `[N, 2]`, in nats."""
    rows = batch.rows
    hidden = model.hidden_states(rows)
    with model.autocast():
        tokens = token_log_probs(hidden.flatten(0, 1), model.output_weight, rows.labels.flatten())
    sums = sequence_log_probs(tokens.view_as(rows.labels), rows.document_ids, 2 * batch.pairs.shape[1])
    return of_pairs(sums, batch.pairs)


def reshard(model: PlacedDecoder) -> None:
    """Free what a forward pass alone leaves gathered, so that parameters are the optimiser's again."""
    for group in fully_sharded_modules(model.decoder):
        group.reshard()


def pair_results(name: str, losses: Sequence[Tensor], margins: Sequence[Tensor]) -> dict[str, float]:
    """Mean loss and margin, and the share of positive margins with its 95 % bootstrap interval, of a held-out set."""
    margin = torch.cat(list(margins)).float().cpu()
    accuracy = bootstrap_mean((margin > 0).float().tolist(), seed=0)
    return {
        f"{name}/loss": float(torch.cat(list(losses)).mean()),
        f"{name}/accuracy": accuracy.value,
        f"{name}/accuracy_low": accuracy.low,
        f"{name}/accuracy_high": accuracy.high,
        f"{name}/margin": float(margin.mean()),
    }
