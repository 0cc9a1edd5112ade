"""What a request does to its logits before a token is chosen from them (see `kilonova.engine.sampling`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kilonova.core.types import SamplingParams


def edits_logits(params: SamplingParams) -> bool:
    """Whether any of the penalties, `logit_bias` or `min_p` is on."""
    return bool(
        params.frequency_penalty
        or params.presence_penalty
        or params.repetition_penalty != 1
        or params.min_p
        or params.logit_bias
    )


class Penalties:
    """The penalties, bias and least probability of one request, with the tokens it has so far.

    Each token is counted once; a step costs the vocabulary's length, not the text's.
    """

    def __init__(self, params: SamplingParams, prompt_length: int) -> None:
        self._params = params
        self._prompt_length = prompt_length
        self._num_counted = 0
        self._counts: Tensor | None = None
        self._is_in_prompt: Tensor | None = None
        self._bias: tuple[Tensor, Tensor] | None = None

    def apply(self, logits: Tensor, token_ids: Sequence[int], guesses: Sequence[int]) -> None:
        """Edits `logits` `[N, vocab]` in place: of what follows `token_ids`, then also the first N - 1 `guesses`."""
        counts, is_in_prompt = self._count(logits, token_ids)
        for row, one in enumerate(logits):
            if row:
                counts = counts.clone() if row == 1 else counts
                counts[guesses[row - 1]] += 1
            one.copy_(self._edited(one.float(), counts, is_in_prompt))

    def _count(self, logits: Tensor, token_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """How often each token was generated, and whether it is in the prompt, both `[vocab]`."""
        if self._counts is None or self._is_in_prompt is None:
            self._counts = torch.zeros(logits.shape[1], device=logits.device)
            self._is_in_prompt = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
            self._is_in_prompt[torch.tensor(token_ids[: self._prompt_length], device=logits.device)] = True
            self._num_counted = self._prompt_length
        for token in token_ids[self._num_counted :]:
            self._counts[token] += 1
        self._num_counted = len(token_ids)
        return self._counts, self._is_in_prompt

    def _edited(self, logits: Tensor, counts: Tensor, is_in_prompt: Tensor) -> Tensor:
        params = self._params
        is_generated = counts > 0
        if params.repetition_penalty != 1:
            penalty = params.repetition_penalty
            penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = torch.where(is_generated | is_in_prompt, penalised, logits)
        if params.frequency_penalty or params.presence_penalty:
            logits = logits - (params.frequency_penalty * counts + params.presence_penalty * is_generated)
        if params.logit_bias:
            if self._bias is None:
                ids, values = zip(*params.logit_bias.items(), strict=True)
                self._bias = (
                    torch.tensor(ids, device=logits.device),
                    torch.tensor(values, device=logits.device).float(),
                )
            logits = logits.index_add(0, *self._bias)
        if params.min_p:
            logits = logits.masked_fill(logits < logits.max() + math.log(params.min_p), -math.inf)
        return logits
