"""Which faults a run rehearses."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

from kilonova.core.errors import ConfigError

FaultKind = Literal["kill", "hang", "exception", "corrupt", "full_disk", "nan"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault, just before optimiser step `step` (from 0) on one rank.

    `kill` sends SIGKILL; `hang` never returns; `exception` raises; `corrupt` overwrites part of the newest checkpoint,
    then kills; `full_disk` lets the next save meet ENOSPC; `nan` makes a gradient of the
    rows of that step not a number.
    """

    kind: FaultKind
    step: int
    rank: int = 0


@dataclass(frozen=True, kw_only=True)
class FaultsSection:
    """Which faults a run rehearses: those named in `at`, and `count` drawn by `seed` from `kinds`.

    Each happens once in the life of the output folder, however often its step is done again, but `nan` whenever its
    rows are computed.
    """

    at: tuple[Fault, ...] = ()
    count: int = 0
    kinds: tuple[FaultKind, ...] = get_args(FaultKind)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count and not self.kinds:
            raise ConfigError("faults.kinds: name at least one")

    def schedule(self, steps: int, num_ranks: int) -> tuple[Fault, ...]:
        """All faults of a run of `steps` steps."""
        generator = random.Random(self.seed)
        drawn = []
        for _ in range(self.count):
            kind, step = generator.choice(self.kinds), generator.randrange(1, max(2, steps))
            drawn.append(Fault(kind=kind, step=step, rank=generator.randrange(num_ranks)))
        return (*self.at, *drawn)
