"""Steps that would harm the model: a loss or gradient that is not finite, or far above what was usual."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from kilonova.core.errors import ConfigError, KilonovaError


class TrainingDiverged(KilonovaError):
    """Too many steps in a row could not be used."""


@dataclass(frozen=True, kw_only=True)
class StabilitySection:
    """What becomes of a bad step: one whose gradient norm is not finite or, with `spike_deviations`, whose loss or
    gradient norm lies more than so many standard deviations above the mean of the last `window` good steps.

    `skip` drops its update (arXiv 2501.00656, 3.1 skips spikes likewise), `rewind` goes back to the newest checkpoint
    and leaves out the rows of the steps between (arXiv 2204.02311, 5.1), `stop` ends the run. So does `max_bad_steps`
    of them within a window. `step_timeout` is in seconds: a process whose step takes longer ends, to be restarted.
    """

    bad_step: Literal["skip", "rewind", "stop"] = "skip"
    spike_deviations: float | None = None
    window: int = 128
    max_bad_steps: int = 10
    step_timeout: float | None = 1800.0

    def __post_init__(self) -> None:
        if self.window < 16:
            raise ConfigError("stability.window: must be at least 16")
        if self.spike_deviations is not None and self.spike_deviations <= 0:
            raise ConfigError("stability.spike_deviations: must be positive")
        if self.step_timeout is not None and self.step_timeout <= 0:
            raise ConfigError("stability.step_timeout: must be positive")


class StabilityMonitor:
    """Judges the steps of a run; what it remembers belongs in the checkpoint."""

    def __init__(self, section: StabilitySection) -> None:
        self._section = section
        self._good: deque[tuple[float, float]] = deque(maxlen=section.window)
        self._recent: deque[bool] = deque(maxlen=section.window)

    @property
    def needs_loss(self) -> bool:
        """Whether `judge` looks at the loss."""
        return self._section.spike_deviations is not None

    def judge(self, loss: float, grad_norm: float) -> str | None:
        """Why a step is bad, or None. Raises `TrainingDiverged` when it is one too many, or the recipe says `stop`."""
        reason = self._reason(loss, grad_norm)
        self._recent.append(reason is not None)
        if reason is None:
            self._good.append((loss, grad_norm))
        elif self._section.bad_step == "stop":
            raise TrainingDiverged(f"{reason}; stability.bad_step says to stop")
        elif sum(self._recent) > self._section.max_bad_steps:
            raise TrainingDiverged(
                f"{reason}; {sum(self._recent)} of the last {len(self._recent)} steps were bad: lower the learning "
                "rate, or look at the data"
            )
        return reason

    def state_dict(self) -> dict[str, Any]:
        return {"good": [list(values) for values in self._good]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._good = deque(((loss, norm) for loss, norm in state["good"]), maxlen=self._section.window)

    def _reason(self, loss: float, grad_norm: float) -> str | None:
        values = (("loss", loss), ("gradient norm", grad_norm))
        for index, (name, value) in enumerate(values):
            if not math.isfinite(value):
                return f"{name} is {value}"
            deviations = self._section.spike_deviations
            if deviations is None or len(self._good) < self._section.window // 4:
                continue
            earlier = [pair[index] for pair in self._good]
            mean, deviation = statistics.fmean(earlier), statistics.pstdev(earlier)
            if value > mean + deviations * deviation:
                return f"{name} {value:.3g} is over {mean:.3g} + {deviations:g} x {deviation:.2g}"
        return None
