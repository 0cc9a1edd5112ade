"""Prompts of an exact number of tokens, for a tokenizer that may be out of reach."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from kilonova.core.errors import ConfigError

# How many tokens of input a text is.
Count = Callable[[str], Awaitable[int]]

_START = "Words:"
_WORDS = (
    *("a", "the", "of", "and", "to", "in", "is", "it", "for", "was", "on", "are"),
    *("as", "with", "be", "at", "one", "have", "this", "from", "water", "house", "people", "number"),
)
# Often enough that what a tokenizer makes of a text's end does not matter.
_REPEATS = 8


@dataclass(frozen=True)
class PromptBuilder:
    """Texts of random words whose tokens are known: `base` for what is in every prompt, `costs` for each word.

    Every tokenizer in common use splits a text before its spaces first, so that tokens of words add up. A prompt's
    words differ from its first on: no server finds the beginning of one in its prefix cache.
    """

    base: int
    costs: Mapping[str, int]

    @classmethod
    async def measure(cls, count: Count) -> PromptBuilder:
        """Find the costs by asking for the tokens of short texts."""
        base = await count(_START)
        costs = {}
        for word in _WORDS:
            tokens = await count(_START + f" {word}" * _REPEATS) - base
            costs[word] = max(1, round(tokens / _REPEATS))
        return cls(base, costs)

    def build(self, tokens: int, seed: str) -> str:
        """A prompt of `tokens` tokens; of a few less where the words' costs cannot add up to it.

        Equal seeds give equal prompts. Raises ConfigError when `tokens` does not hold even one word.
        """
        left = tokens - self.base
        if left < min(self.costs.values()):
            least = self.base + min(self.costs.values())
            raise ConfigError(f"input_tokens: must be at least {least} for this model, not {tokens}")
        generator = random.Random(seed)
        words, costs = list(self.costs), list(self.costs.values())
        chosen = []
        while left >= 2 * max(costs):
            index = generator.randrange(len(words))
            chosen.append(words[index])
            left -= costs[index]
        return _START + "".join(f" {word}" for word in (*chosen, *self._fill(left)))

    def _fill(self, tokens: int) -> list[str]:
        """The words that come nearest to `tokens` in all without exceeding it."""
        reached: dict[int, list[str]] = {0: []}
        for total in range(tokens + 1):
            if total in reached:
                for word, cost in self.costs.items():
                    reached.setdefault(total + cost, [*reached[total], word])
        return reached[max(total for total in reached if total <= tokens)]
