"""What clients ask: the same requests, drawn from a seed, of a server and of a bare engine."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

TEMPERATURE = 0.7
TOP_P = 0.9

_WORDS = (
    "the",
    "small",
    "river",
    "old",
    "house",
    "bright",
    "cat",
    "runs",
    "near",
    "green",
    "quick",
    "story",
    "of",
    "and",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """One request; its client goes away after `leaves_after` pieces of the answer, unless that is None."""

    prompt: str
    max_tokens: int
    is_bedrock: bool
    leaves_after: int | None


def plans(seed: int, client: int) -> Iterator[Plan]:
    """What one client asks, for ever; a third of the answers it leaves at random."""
    rng = random.Random(f"{seed}/{client}")
    while True:
        max_tokens = rng.randint(16, 96)
        prompt = " ".join(rng.choices(_WORDS, k=rng.randint(8, 40)))
        leaves = rng.randint(1, max_tokens) if rng.random() < 1 / 3 else None
        yield Plan(prompt, max_tokens, rng.random() < 0.5, leaves)
