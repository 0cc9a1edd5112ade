import math

import pytest

from kilonova.core.errors import ConfigError
from kilonova.train.faults.section import Fault, FaultsSection
from kilonova.train.faults.stability import StabilityMonitor, StabilitySection, TrainingDiverged


def settled(**settings) -> StabilityMonitor:
    """A monitor that has seen 64 losses of 2.0 +- 0.1."""
    monitor = StabilityMonitor(StabilitySection(spike_deviations=6.0, **settings))
    for step in range(64):
        assert monitor.judge(2.0 + 0.1 * (-1) ** step, 1.0) is None
    return monitor


@pytest.mark.parametrize(
    ("loss", "norm", "reason"),
    [(math.nan, 1.0, "loss is nan"), (2.0, math.inf, "gradient norm is inf"), (2.7, 1.0, "loss 2.7 is over")],
)
def test_bad_steps_are_named(loss: float, norm: float, reason: str) -> None:
    assert reason in (settled().judge(loss, norm) or "")


def test_what_is_within_the_deviations_is_good_and_a_spike_does_not_widen_them() -> None:
    monitor = settled()
    assert monitor.judge(2.5, 1.0) is None
    assert all(monitor.judge(9.0, 1.0) for _ in range(5))


def test_only_what_is_not_finite_is_bad_without_deviations() -> None:
    monitor = StabilityMonitor(StabilitySection())
    assert not monitor.needs_loss
    assert all(monitor.judge(0.0, norm) is None for norm in (1.0,) * 100 + (1e30,))
    assert monitor.judge(0.0, math.nan)


def test_too_many_bad_steps_end_the_run() -> None:
    monitor = settled(max_bad_steps=2)
    assert monitor.judge(math.nan, 1.0)
    assert monitor.judge(math.nan, 1.0)
    with pytest.raises(TrainingDiverged, match="3 of the last"):
        monitor.judge(math.nan, 1.0)
    with pytest.raises(TrainingDiverged, match="says to stop"):
        settled(bad_step="stop").judge(math.nan, 1.0)


def test_a_restored_monitor_judges_alike() -> None:
    monitor = settled()
    other = StabilityMonitor(StabilitySection(spike_deviations=6.0))
    other.load_state_dict(monitor.state_dict())
    assert other.judge(2.65, 1.0) == monitor.judge(2.65, 1.0) is not None


def test_faults_are_drawn_by_the_seed() -> None:
    section = FaultsSection(at=(Fault(kind="nan", step=3),), count=20, kinds=("kill", "hang"), seed=4)
    schedule = section.schedule(100, 4)
    assert schedule == section.schedule(100, 4)
    assert schedule[0] == Fault(kind="nan", step=3)
    assert len(schedule) == 21
    assert {fault.kind for fault in schedule[1:]} == {"kill", "hang"}
    assert {fault.rank for fault in schedule} == {0, 1, 2, 3}
    assert all(1 <= fault.step < 100 for fault in schedule)
    assert schedule != FaultsSection(at=section.at, count=20, kinds=("kill", "hang"), seed=5).schedule(100, 4)


@pytest.mark.parametrize("settings", [{"window": 2}, {"spike_deviations": 0.0}, {"step_timeout": -1.0}])
def test_settings_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        StabilitySection(**settings)
