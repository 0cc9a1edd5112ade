"""Learning-rate schedules."""

from __future__ import annotations

from kilonova.train.run_recipe import ScheduleSection


def learning_rate_factor(step: int, total_steps: int, schedule: ScheduleSection) -> float:
    """The part of the peak learning rate that optimiser step `step` (from 0) uses; see `ScheduleSection`."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    decay_steps = schedule.decay_fraction * total_steps
    into_decay = step - (total_steps - decay_steps)
    if into_decay <= 0:
        return 1.0
    return schedule.final_ratio + (1 - schedule.final_ratio) * (1 - (into_decay / decay_steps) ** 0.5)
