"""The recipe's `memory` and `memory_budget`: what is kept between the forward and the backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from kilonova.core.errors import ConfigError

MemoryPolicy = Literal["none", "selective", "full", "ssc", "ssc8", "budget"]
POLICIES: tuple[MemoryPolicy, ...] = get_args(MemoryPolicy)


@dataclass(frozen=True)
class ActivationMemory:
    """What is kept of a model whose rows have `sequence_length` positions (None: not known)."""

    policy: MemoryPolicy = "none"
    budget: float | None = None
    sequence_length: int | None = None


def check_memory_policy(policy: MemoryPolicy, budget: float | None, *, compile: bool) -> None:
    """Raise `ConfigError` for values of a recipe that do not go together."""
    if policy not in POLICIES:
        raise ConfigError(f"memory: {policy!r} is not one of {', '.join(POLICIES)}")
    if policy == "budget":
        if not compile:
            raise ConfigError("memory: budget is the compiler's choice of what to keep, and needs compile: true")
        if budget is None or not 0 <= budget <= 1:
            raise ConfigError("memory_budget: memory: budget needs a number from 0 (keep nothing) to 1 (keep all)")
    elif budget is not None:
        raise ConfigError(f"memory_budget: only memory: budget has one, not memory: {policy}")
