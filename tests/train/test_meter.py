import time

import pytest
import torch

from kilonova.train.meter import ThroughputMeter, matmul_flops_per_second


def test_matmul_rate_is_that_of_a_product() -> None:
    assert 1e8 < matmul_flops_per_second(torch.device("cpu"), torch.float32, seconds=0.05) < 1e14


def test_throughput_counts_since_the_last_reading() -> None:
    meter = ThroughputMeter(flops_per_token=10.0, peak_flops=1e5)
    meter.add(50)
    meter.add(50)
    start = time.perf_counter()
    time.sleep(0.05)
    rate, mfu = meter.read()
    assert 100 / (time.perf_counter() - start + 0.05) < rate <= 100 / 0.05
    assert mfu == pytest.approx(rate * 10 / 1e5)
    assert meter.read()[0] == 0
