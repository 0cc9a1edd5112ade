"""Holds the tokens of one answer to its grammar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kilonova.core.errors import EngineError
from kilonova.text.grammar import CompiledGrammar


class Constraint:
    """Where an answer is in its grammar, which is a function of its tokens.

    With `ignore_eos` the answer ends only where nothing else may follow. `stop_token_ids` are those that end it.
    """

    def __init__(
        self, grammar: CompiledGrammar, vocab_size: int, stop_token_ids: frozenset[int], *, ignore_eos: bool = False
    ) -> None:
        self._grammar = grammar
        self._matcher = grammar.matcher()
        self._vocab_size = vocab_size
        self._stops = stop_token_ids
        self._ignored = sorted(stop_token_ids) if ignore_eos else []
        self._words = (vocab_size + 31) // 32

    def forced(self) -> list[int]:
        """The tokens that must follow whatever the model says; empty where it has a choice."""
        return self._matcher.compute_ff_tokens()

    def num_valid(self, token_ids: Sequence[int]) -> int:
        """How many of `token_ids` may follow, from the first on, without ending the answer."""
        until_end = next((place for place, token in enumerate(token_ids) if token in self._stops), len(token_ids))
        return self._matcher.validate_tokens(list(token_ids[:until_end])) if until_end else 0

    def allowed(self, guesses: Sequence[int]) -> list[NDArray[np.bool_]]:
        """Which tokens may come next, and which after each of `guesses`, as far as these are themselves allowed.

        Raises EngineError where the grammar has become too complex.
        """
        rows = [self._next()]
        taken = 0
        for guess in guesses:
            if guess in self._stops or self._matcher.try_consume_tokens([guess]) != 1:
                break
            taken += 1
            rows.append(self._next())
        if taken:
            self._matcher.rollback(taken)
        return rows

    def accept(self, token_id: int) -> None:
        """Go on from a token that was drawn, which is not a stop token. Raises EngineError as `allowed`."""
        if not self._matcher.consume_token(token_id):
            raise self._failure()

    def _next(self) -> NDArray[np.bool_]:
        mask = np.empty(self._words, dtype=np.int32)
        if not self._matcher.is_error():
            self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if self._matcher.is_error():
            raise self._failure()
        bits = np.unpackbits(mask.view(np.uint8), count=self._vocab_size, bitorder="little").view(np.bool_)
        if self._ignored:
            stops = bits[self._ignored]
            bits[self._ignored] = False
            if not bits.any():
                bits[self._ignored] = stops
        return bits

    def _failure(self) -> EngineError:
        self._grammar.discard()
        reason = " ".join(self._matcher.get_error().replace("<non-verbose/>", "").split())
        return EngineError(f"the answer's grammar became too complex: {reason[:200]}")
