"""How fast a run is, against what its machine can do."""

from __future__ import annotations

import time

import torch


def matmul_flops_per_second(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """The best rate of a large square matrix product, measured: the 100 % of model FLOPs utilisation (MFU)."""
    size = 8192 if device.type == "cuda" else 1536
    a = torch.randn(size, size, device=device, dtype=dtype)
    b = torch.randn(size, size, device=device, dtype=dtype)
    best = 0.0
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or best == 0.0:
        _synchronize(device)
        start = time.perf_counter()
        a @ b
        _synchronize(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class ThroughputMeter:
    """Tokens per second and MFU since the last reading."""

    def __init__(self, flops_per_token: float, peak_flops: float) -> None:
        self._flops_per_token = flops_per_token
        self._peak_flops = peak_flops
        self._start = time.perf_counter()
        self._tokens = 0

    def add(self, tokens: int) -> None:
        self._tokens += tokens

    def read(self) -> tuple[float, float]:
        """Tokens per second and MFU (0 to 1) since the previous reading."""
        now = time.perf_counter()
        rate = self._tokens / max(now - self._start, 1e-9)
        self._start, self._tokens = now, 0
        return rate, rate * self._flops_per_token / self._peak_flops
