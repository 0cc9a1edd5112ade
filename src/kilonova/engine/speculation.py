"""Guesses of the next tokens, which one step of the model checks together.

A guess is kept as far as it equals what the request draws anyway: every token is still drawn from the model's own
distribution with the request's own numbers, so the text is the same, to the letter, as without guessing. What is saved
is the number of steps.

Where a request's grammar leaves one way to go on, that is the guess. Else the guesses of `PromptLookup` come from the
text so far (arXiv 2304.04487): answers repeat names, phrases and whole passages of their prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kilonova.engine.draft_model import DraftModel
    from kilonova.engine.request import Request

# Where the last three tokens, or else two, have occurred before, what followed them there is the guess.
_LENGTHS = (3, 2)
MAX_DRAFT_TOKENS = 8
FIRST_ESTIMATE = 0.5
_LEARNING_RATE = 0.15
_FORGETTING = 0.005
_ROUNDS = 5
_MEASURED_TOKENS = 8
_MEASURING_SECONDS = 0.2


class PromptLookup:
    """The guesses for one request, and how often they were right."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._num_indexed = 0
        self._is_right = dict.fromkeys(_LENGTHS, FIRST_ESTIMATE)
        self._length = 0
        self._guess: list[int] = []

    def propose(self, token_ids: Sequence[int], most: int) -> tuple[list[int], float]:
        """At most `most` tokens that may follow, and the estimated chance of each, where those before it are right."""
        self._index(token_ids)
        self._guess = []
        for length in _LENGTHS:
            place = self._after.get(tuple(token_ids[-length:]))
            if place is not None:
                self._length = length
                self._guess = list(token_ids[place : place + most])
                return self._guess, self._is_right[length]
        return [], 0.0

    def learn(self, drawn: Sequence[int]) -> None:
        """Compare the last guess, drafted or not, with the tokens that were drawn instead."""
        for guessed, token in zip(self._guess, drawn, strict=False):
            estimate = self._is_right[self._length]
            self._is_right[self._length] = estimate + _LEARNING_RATE * ((guessed == token) - estimate)
            if guessed != token:
                break
        self._guess = []

    def _index(self, token_ids: Sequence[int]) -> None:
        """Notes what follows each run of tokens; the last run is followed by nothing yet, and the latest place wins."""
        for end in range(max(self._num_indexed, 1), len(token_ids)):
            for length in _LENGTHS:
                if end >= length:
                    self._after[tuple(token_ids[end - length : end])] = end
        self._num_indexed = max(self._num_indexed, len(token_ids))


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of a step: `fixed`, and `per_token` for each token in it."""

    fixed: float
    per_token: float

    @classmethod
    def measure(cls, step: Callable[[int], object]) -> StepCost:
        """The cost of `step(n)`, which must compute a step of `n` tokens."""
        one, several = _seconds(step, 1), _seconds(step, _MEASURED_TOKENS)
        per_token = max(0.0, several - one) / (_MEASURED_TOKENS - 1)
        return cls(max(0.0, one - per_token), per_token)

    def draft_length(self, chance: float, num_tokens: int, drafting: float = 0.0) -> int:
        """How many guesses that are right with `chance` each pay beside `num_tokens` tokens in a step.

        The last of them must add more tokens in its time, and the `drafting` seconds to find it, than the step makes.
        """
        step = self.fixed + self.per_token * num_tokens
        needed = (self.per_token + drafting) * num_tokens / step if step else 0.0
        length, expected = 0, chance
        while length < MAX_DRAFT_TOKENS and expected > needed:
            length += 1
            expected *= chance
        return length


def _seconds(step: Callable[[int], object], num_tokens: int) -> float:
    best, spent = float("inf"), 0.0
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        step(num_tokens)
        elapsed = time.perf_counter() - start
        best, spent = min(best, elapsed), spent + elapsed
        if spent > _MEASURING_SECONDS:
            break
    return best


class Speculator:
    """Decides, before every step, which guesses it checks: those from the text, or else those of a smaller model."""

    def __init__(self, cost: StepCost, draft_model: DraftModel | None = None) -> None:
        self._cost = cost
        self._draft_model = draft_model

    def draft(self, running: Iterable[Request]) -> None:
        """Set the `draft` of every request that generates."""
        generating = [request for request in running if request.slot >= 0 and request.is_generating]
        modelled: list[tuple[Request, int]] = []
        for request in generating:
            most = min(MAX_DRAFT_TOKENS, request.num_left - 1)
            guess, chance = self._guess(request, most)
            request.draft = guess[: self._cost.draft_length(chance, len(generating))]
            if self._draft_model is not None and not request.draft:
                cost = self._draft_model.cost
                drafting = cost.fixed / len(generating) + cost.per_token
                wanted = min(most, self._cost.draft_length(request.chance, len(generating), drafting))
                if wanted:
                    modelled.append((request, wanted))
                else:
                    # So that a request for which guesses did not pay is tried again at times.
                    request.chance += _FORGETTING * (FIRST_ESTIMATE - request.chance)
        if self._draft_model is not None and modelled:
            for (request, _), guess in zip(modelled, self._draft_model.propose(modelled), strict=True):
                request.draft = guess if request.constraint is None else guess[: request.constraint.num_valid(guess)]
                request.is_modelled = True

    def _guess(self, request: Request, most: int) -> tuple[list[int], float]:
        """What the request's grammar forces, which is certain to be right, or else its text's guesses."""
        constraint = request.constraint
        if constraint is None:
            return request.lookup.propose(request.token_ids, most)
        forced = constraint.forced()[:most]
        if forced:
            return forced, 1.0
        guess, chance = request.lookup.propose(request.token_ids, most)
        return guess[: constraint.num_valid(guess)], chance

    def learn(self, request: Request, drawn: Sequence[int]) -> None:
        """Note which tokens were drawn: those guesses that were right, and the next one."""
        request.lookup.learn(drawn)
        if request.is_modelled:
            for guess, token in zip(request.draft, drawn, strict=False):
                request.chance += _LEARNING_RATE * ((guess == token) - request.chance)
        request.draft, request.is_modelled = [], False
