import time
from collections.abc import Iterator

import pytest
import torch

from kilonova.engine.threads import StepThreads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def costs(one: dict[int, float], two: dict[int, float]):
    """A step that takes the given milliseconds, by its tokens and the threads in force."""
    return lambda tokens: time.sleep((one if torch.get_num_threads() == 1 else two)[tokens] / 1000)


def test_small_steps_take_one_thread_and_large_ones_all() -> None:
    threads = StepThreads(costs({1: 4, 8: 8, 64: 64}, {1: 12, 8: 16, 64: 32}), CPU)
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with threads(63):
        assert torch.get_num_threads() == 1
    with threads(64):
        assert torch.get_num_threads() == 2


def test_all_threads_for_everything_where_they_always_win() -> None:
    threads = StepThreads(costs({1: 16, 8: 32, 64: 64}, {1: 8, 8: 16, 64: 32}), CPU)
    with threads(1):
        assert torch.get_num_threads() == 2


def test_a_failing_step_leaves_the_threads_as_they_were() -> None:
    threads = StepThreads(costs({1: 1, 8: 1, 64: 1}, {1: 3, 8: 3, 64: 3}), CPU)

    with pytest.raises(RuntimeError, match="step"), threads(1):
        raise RuntimeError("step")
    assert torch.get_num_threads() == 2


def test_nothing_is_measured_on_a_gpu_or_with_one_thread() -> None:
    def fail(tokens: int) -> None:
        raise AssertionError

    StepThreads(fail, torch.device("cuda"))
    torch.set_num_threads(1)
    StepThreads(fail, CPU)
