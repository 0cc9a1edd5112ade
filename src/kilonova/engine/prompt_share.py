"""How many prompt tokens join a step in which others generate, so that these hardly notice."""

from __future__ import annotations

# A step with prompt tokens is to take so many times what one without takes: on average, so that the slow ones among
# them take less than twice as long.
_SLOWDOWN = 1.4
_LEAST_TOKENS = 8
# With which it starts: a first guess that is too large is felt at once, one that is too small is soon made good.
_FIRST_TOKENS = 32
# The weight of the newest step in the average, and the most by which one step changes the number of tokens.
_NEWEST = 0.2
_LEAST_CHANGE, _MOST_CHANGE = 0.5, 1.5


class PromptShare:
    """Follows how long steps take, and sets `tokens`, between 8 and `most_tokens`, to suit.

    What a prompt token costs beside what a generating sequence does differs with model, machine, kernels and context,
    so it is measured as it goes.
    """

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._generating_seconds = 0.0
        self._tokens = float(min(_FIRST_TOKENS, most_tokens))

    @property
    def tokens(self) -> int:
        return int(self._tokens)

    def observe(self, prompt_tokens: int, seconds: float) -> None:
        """Note a step with generating sequences that read so many prompt tokens beside them."""
        alone = self._generating_seconds
        if prompt_tokens == 0:
            self._generating_seconds = seconds if alone == 0 else alone + _NEWEST * (seconds - alone)
        elif alone > 0 and prompt_tokens >= min(self.tokens, _LEAST_TOKENS):
            extra = max(seconds - alone, 1e-9) / prompt_tokens * self._tokens
            change = min(max((_SLOWDOWN - 1) * alone / extra, _LEAST_CHANGE), _MOST_CHANGE)
            self._tokens = min(max(self._tokens * change, _LEAST_TOKENS), self._most_tokens)
