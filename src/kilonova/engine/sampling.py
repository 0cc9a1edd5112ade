"""Choice of the next token, for a batch whose requests differ.

First the logits are edited (`kilonova.engine.penalties`, `kilonova.engine.constraint`), in this order:

- tokens that the answer's grammar rules out go to minus infinity;
- `repetition_penalty` r, for every token of prompt and answer: z / r where z > 0, else z * r (arXiv 1909.05858);
- `frequency_penalty` f and `presence_penalty` p, for every token that was generated c > 0 times: z - c f - p;
- `logit_bias` is added;
- `min_p` rules out tokens whose probability, at temperature 1, is below that share of the largest (arXiv 2407.01082).

Then, with logits `z`, temperature `T > 0` and `p = softmax(z / T)`:

- `top_k` keeps the tokens whose probability is at least the k-th largest;
- `top_p` then keeps the most likely tokens up to the first at which their share of what is left reaches `top_p`;
- tokens tied with the last one kept are kept too, so that no filter depends on an order among equals;
- a uniform `u` in [0, 1) picks, in order of token id, the first token at which the running sum of kept probabilities
  exceeds `u` times their total (inverse of the cumulative distribution, summed in float64).

`u` is the 53 leading bits of `BLAKE2b-64(seed, index)`, where `index` counts the request's sampled tokens: it depends
on nothing else, so a request draws the same numbers whatever it shares a batch with. Temperature 0 takes the largest
logit, the lowest id among equals.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kilonova.core.types import SamplingParams

# Nucleus sizes tried before a full sort, which costs some twenty times as much as the first of them.
_NUCLEUS_SIZES = (64, 1024)


class RawLogprob(NamedTuple):
    """Natural-log probability of a token, and the most likely alternatives, best first."""

    token_id: int
    logprob: float
    top_ids: list[int]
    top_logprobs: list[float]


def uniform(seed: int, index: int) -> float:
    """Draw number `index` of the stream `seed`: uniform over multiples of 2^-53 in [0, 1)."""
    digest = hashlib.blake2b(struct.pack("<QQ", seed & 0xFFFF_FFFF_FFFF_FFFF, index), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def sample(logits: Tensor, params: Sequence[SamplingParams], draws: Sequence[tuple[int, int]]) -> list[int]:
    """One token id a row of `logits` `[N, vocab]` under its own parameters; -1 for a row that is not finite.

    `draws` holds seed and index of each row's uniform number; rows at temperature 0 use none.
    """
    largest, chosen = logits.max(dim=-1)
    tokens, peaks = chosen.tolist(), largest.tolist()
    random_rows = [row for row, one in enumerate(params) if one.temperature > 0]
    if random_rows:
        selected = logits if len(random_rows) == len(params) else logits[random_rows]
        numbers = [uniform(*draws[row]) for row in random_rows]
        drawn = _draw(selected, [params[row] for row in random_rows], numbers)
        for row, token in zip(random_rows, drawn, strict=True):
            tokens[row] = token
    return [token if abs(peak) < float("inf") else -1 for token, peak in zip(tokens, peaks, strict=True)]


def probabilities(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """The filtered distributions `[N, vocab]` that `sample` draws from, unnormalised (temperatures above 0)."""
    logits = logits.float()
    temperatures = torch.tensor([one.temperature for one in params], device=logits.device)[:, None]
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperatures
    kept = scaled.softmax(dim=-1)
    vocab = kept.shape[1]
    top_k = [min(one.top_k, vocab) if one.top_k else vocab for one in params]
    if min(top_k) < vocab:
        kept = _keep_top_k(kept, top_k)
    if min(one.top_p for one in params) < 1:
        floor = _nucleus_floor(kept, torch.tensor([one.top_p for one in params], device=logits.device).double())
        kept = kept.masked_fill(kept < floor, 0.0)
    return kept


def _draw(logits: Tensor, params: Sequence[SamplingParams], numbers: list[float]) -> list[int]:
    cumulative = probabilities(logits, params).cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    targets = torch.tensor(numbers, dtype=torch.float64, device=logits.device)[:, None] * total
    # The product may round up to the total itself, which no running sum exceeds.
    targets = torch.minimum(targets, total * (1 - 2.0**-52))
    return torch.searchsorted(cumulative, targets, right=True)[:, 0].tolist()


def _keep_top_k(weights: Tensor, top_k: list[int]) -> Tensor:
    vocab = weights.shape[1]
    limits = torch.tensor(top_k, device=weights.device)[:, None]
    largest = weights.topk(max(k for k in top_k if k < vocab), dim=-1).values
    floor = largest.gather(1, limits.clamp_max(largest.shape[1]) - 1)
    return weights.masked_fill((weights < floor) & (limits < vocab), 0.0)


def _nucleus_floor(weights: Tensor, top_p: Tensor) -> Tensor:
    """The least weight `[N, 1]` inside each row's nucleus; 0 where `top_p` is 1."""
    wanted = top_p[:, None] * weights.sum(dim=-1, keepdim=True, dtype=torch.float64)
    floor = torch.zeros_like(weights[:, :1])
    open_rows = torch.nonzero(top_p < 1)[:, 0]
    vocab = weights.shape[1]
    for size in (*(size for size in _NUCLEUS_SIZES if size < vocab), vocab):
        largest = weights[open_rows].topk(size, dim=-1).values
        below = (largest.cumsum(dim=-1, dtype=torch.float64) < wanted[open_rows]).sum(dim=-1, keepdim=True)
        floor[open_rows] = largest.gather(1, below.clamp_max(size - 1))
        open_rows = open_rows[below[:, 0] >= size]
        if not len(open_rows):
            break
    return floor


def logprobs(logits: Tensor, token_ids: Sequence[int], top: int) -> list[RawLogprob]:
    """Log-probabilities of `token_ids` (one a row of `logits` `[N, vocab]`) and of the `top` most likely tokens."""
    log_probabilities = logits.float().log_softmax(dim=-1)
    ids = torch.tensor(token_ids, device=logits.device)
    chosen = log_probabilities.gather(1, ids[:, None])[:, 0].tolist()
    values, indices = log_probabilities.topk(min(top, logits.shape[1]), dim=-1)
    rows = zip(token_ids, chosen, indices.tolist(), values.tolist(), strict=True)
    return [RawLogprob(*row) for row in rows]
