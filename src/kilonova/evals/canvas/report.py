"""What an evaluation of pictures found."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from kilonova.evals.metrics import Estimate


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of one part with its 95 % interval over `count` pictures.

    `ceiling` is what the same measurement gives for pictures that are right; None where it cannot be known. `baselines`
    are what other pictures would get, `parts` the score of parts of what was asked, `details` all that was seen.
    """

    part: str
    metric: str
    value: float
    low: float
    high: float
    count: int
    ceiling: float | None = None
    baselines: dict[str, float] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    details: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, part: str, metric: str, estimate: Estimate, count: int, **more: Any) -> Score:
        """A score from an estimate."""
        values = {name: round(getattr(estimate, name), 4) for name in ("value", "low", "high")}
        return cls(part=part, metric=metric, count=count, **values, **more)


@dataclass
class Report:
    """The scores of one model, and the settings under which they were measured.

    `left_out` tells of parts that were not measured, and why.
    """

    model: str
    version: str
    limit: int
    seed: int
    size: int
    cfg_scale: float
    num_inference_steps: int | None
    device: str = "cpu"
    classifier: str = ""
    segmenter: str = ""
    seconds: float = 0.0
    scores: list[Score] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The report as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def table(self) -> Table:
        """The scores as a table for the terminal."""
        steps = self.num_inference_steps or "default"
        title = f"{self.model}: at most {self.limit} pictures a part, {self.size} px, {steps} steps, seed {self.seed}"
        table = Table(title=title, caption="; ".join(f"{part}: {why}" for part, why in self.left_out.items()) or None)
        table.add_column("part", no_wrap=True)
        table.add_column("metric")
        table.add_column("score", justify="right")
        table.add_column("95 % interval", justify="right")
        table.add_column("n", justify="right")
        table.add_column("ceiling", justify="right")
        table.add_column("baselines")
        for score in self.scores:
            table.add_row(
                score.part,
                score.metric,
                f"{score.value:.3f}",
                f"{score.low:.3f} to {score.high:.3f}",
                str(score.count),
                "" if score.ceiling is None else f"{score.ceiling:.3f}",
                ", ".join(f"{name} {value:.3f}" for name, value in score.baselines.items()),
            )
        return table
