"""What an engine tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kilonova.engine.adapters import AdapterUse
from kilonova.engine.block_pool import PoolStats


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Requests that run and that wait for a place, and the key-value cache.

    `kv_tokens` are the positions of running requests. Blocks are used by them, or kept as prefixes (cached; some of
    them pinned), or free. `preemptions` counts requests that were set back since the engine started. `adapters` tells
    how each is used; requests that wait for theirs count as waiting. `steps` were computed since the start, in
    `step_seconds`; a request counts in `step_requests` once for each step it was in.
    """

    running: int
    waiting: int
    kv_tokens: int
    kv_blocks: PoolStats
    preemptions: int
    adapters: Mapping[str, AdapterUse]
    steps: int
    step_requests: int
    step_seconds: float
