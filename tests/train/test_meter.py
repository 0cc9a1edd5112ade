import pytest
import torch

from kilonova.train import meter
from kilonova.train.meter import ThroughputMeter, matmul_flops_per_second


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """Seconds that pass only when told to."""
    now = [100.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])
    return now


def test_throughput_counts_since_the_last_reading(clock: list[float]) -> None:
    throughput = ThroughputMeter(flops_per_token=10.0, peak_flops=1e5)
    throughput.add(50)
    throughput.add(50)
    clock[0] += 2
    assert throughput.read() == (50.0, pytest.approx(50 * 10 / 1e5))
    clock[0] += 1
    assert throughput.read() == (0.0, 0.0)


def test_matmul_rate_is_operations_over_the_shortest_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # The deadline, then for each product whether it is over, its start and its end.
    ticks = iter([0.0, 0.1, 0.1, 0.3, 0.4, 0.4, 0.5, 1.0])
    monkeypatch.setattr(meter.time, "perf_counter", lambda: next(ticks))
    rate = matmul_flops_per_second(torch.device("cpu"), torch.float32, seconds=1.0)
    assert rate == pytest.approx(2 * 1536**3 / 0.1)
