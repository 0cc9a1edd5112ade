import pytest

from kilonova.train.run_recipe import ScheduleSection
from kilonova.train.schedule import learning_rate_factor


def test_warm_up_stable_decay() -> None:
    schedule = ScheduleSection(warmup_steps=4, decay_fraction=0.5, final_ratio=0.1)
    factors = [learning_rate_factor(step, 20, schedule) for step in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4:11] == [1.0] * 7
    assert factors[15] == pytest.approx(0.1 + 0.9 * (1 - 0.5**0.5))
    assert sorted(factors[10:], reverse=True) == factors[10:]
    assert factors[-1] > 0.1


def test_no_decay() -> None:
    schedule = ScheduleSection(warmup_steps=0, decay_fraction=0.0)
    assert [learning_rate_factor(step, 5, schedule) for step in range(5)] == [1.0] * 5
