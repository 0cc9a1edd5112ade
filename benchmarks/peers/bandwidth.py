"""How fast this machine reads memory. Needs NumPy alone, as it also runs in the peers' environments."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

# Larger than any cache.
BUFFER_BYTES = 1 << 29
REPEATS = 3


def read_bandwidth(threads: int) -> float:
    """Bytes a second that `threads` threads read together: the best of a few passes over one large buffer."""
    parts = np.array_split(_buffer(), threads)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(REPEATS):
            started = time.perf_counter()
            # The maximum is one vector instruction a load, and NumPy runs it without the interpreter's lock.
            list(pool.map(np.max, parts))
            best = max(best, BUFFER_BYTES / (time.perf_counter() - started))
    return best


@cache
def _buffer() -> np.ndarray:
    # Ones, not zeros: pages that were never written are all the same page of memory.
    return np.ones(BUFFER_BYTES, dtype=np.uint8)
