"""From a run's ledgers to its goodput: which seconds moved the final model, and where the others went."""

from __future__ import annotations

import math
import statistics
from bisect import bisect
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from kilonova.core.errors import DataError
from kilonova.train.goodput.attempts import Attempt, Segment, read_ledger

CLASSES = {
    "compute": "steps that are part of the final model",
    "communication": "waiting for other ranks at the start of such steps",
    "data_wait": "waiting for the rows of a step",
    "checkpoint": "steps held up by a save",
    "evaluation": "validation",
    "lost": "steps done again after a fault, skipped or rewound, and the step a fault hit",
    "detect": "from a hang to its discovery",
    "restart": "from the end of a process to the start of the next: notice, teardown, launch",
    "import": "start of Python and its imports",
    "rendezvous": "ranks finding each other",
    "build": "model, optimiser, data",
    "compile": "what a first step took beyond the usual: compilation and cold caches",
    "restore": "finding and loading a checkpoint",
    "export": "writing the model",
    "idle": "everything else, such as logging",
}

_CLEAN_ENDS = ("stopped", "finished")
_IN_STEP = ("compute", "communication", "data_wait")


@dataclass(frozen=True)
class GoodputReport:
    """Where the time of a run went.

    `seconds` by class of `CLASSES` add up to `wall`; time between a run that was stopped and its continuation counts
    to neither. `goodput` is the part of wall in steps that are in the final model: `compute`, and `communication`
    within them. `mttr` is the mean over faults of the time from the end of the last step that survived to the end of
    the first step after the restart (arXiv 2506.12103, 3.2), `restart` of the part after the failed process's last
    sign of life. `mtbf` is wall over faults. None: nothing to measure it by.
    """

    wall: float
    seconds: dict[str, float]
    goodput: float
    steps: int
    faults: int
    mttr: float | None
    restart: float | None
    mtbf: float | None
    mfu: float | None
    median_step: float | None
    checkpoints: dict[str, float]
    ranks: dict[int, dict[str, float]]
    skipped_steps: int
    timeline: list[tuple[float, float, str]]
    """Start (seconds after the run's), length and class of what went on, neighbours of a class joined."""


def goodput_report(run: Path) -> GoodputReport:
    """Classify the time of the run in folder `run`. Raises `DataError` without a ledger, and when the classes of rank 0
    do not add up to wall-clock time within 1 %.
    """
    folder = run / "ledger"
    attempts = read_ledger(folder / "rank-0.jsonl") if (folder / "rank-0.jsonl").exists() else []
    if not attempts:
        raise DataError(f"{folder} holds no ledger; give the output folder of a run")
    supervisor = read_ledger(folder / "supervisor.jsonl") if (folder / "supervisor.jsonl").exists() else []
    deaths = [note["time"] for part in supervisor for note in part.noted("child ended")]
    lost = _lost(attempts)
    median = _median([time for attempt in attempts for time in _step_times(attempt, lost).values()])
    everybody = {_rank(path): read_ledger(path) for path in sorted(folder.glob("rank-*.jsonl"), key=_rank)}
    hangs = [note["time"] for rank in everybody.values() for attempt in rank for note in attempt.noted("hang")]
    launches = _launches(attempts, [part.started for part in supervisor])
    timeline, away = _classify(attempts, launches, lost, median, deaths, hangs)
    seconds = dict.fromkeys(CLASSES, 0.0)
    for _, length, name in timeline:
        seconds[name] += length
    wall = attempts[-1].end - launches[0] - away
    if abs(sum(seconds.values()) - wall) > 0.01 * wall:
        raise DataError(f"{folder}: the classes add up to {sum(seconds.values()):.1f} s of {wall:.1f} s")
    failures = [pair for pair in pairwise(attempts) if pair[0].reason not in _CLEAN_ENDS]
    repairs = [times for failed, following in failures if (times := _repair_times(failed, following, lost))]
    survived = {s.step for a in attempts for s in a.segments if s.activity == "compute" and s not in lost} - {None}
    machine = next((note for attempt in reversed(attempts) for note in attempt.noted("machine")), None)
    return GoodputReport(
        wall=wall,
        seconds=seconds,
        goodput=(seconds["compute"] + seconds["communication"]) / wall if wall else 0.0,
        steps=len(survived),
        faults=len(failures),
        mttr=_mean([total for total, _ in repairs]),
        restart=_mean([restart for _, restart in repairs]),
        mtbf=wall / len(failures) if failures else None,
        mfu=len(survived) * machine["flops_per_step"] / (seconds["compute"] * machine["peak_flops"])
        if machine and seconds["compute"]
        else None,
        median_step=median,
        checkpoints=_checkpoints(attempts, lost, median),
        ranks={rank: _rank_times(ledger) for rank, ledger in everybody.items()},
        skipped_steps=len({note["step"] for attempt in attempts for note in attempt.noted("skipped")}),
        timeline=[(start - launches[0], length, name) for start, length, name in timeline],
    )


def _lost(attempts: list[Attempt]) -> set[Segment]:
    """The segments of steps whose update is not in the final model: undone by a restart or a rewind, or skipped."""
    lost: set[Segment] = set()
    kept: list[Any] = []
    for attempt in attempts:
        for record in attempt.records:
            if isinstance(record, Segment):
                if record.step is not None and record.activity in _IN_STEP:
                    kept.append(record)
                continue
            if record["note"] in ("restored", "rewound"):
                undone = [segment for segment in kept if segment.step >= record["step"]]
            elif record["note"] == "skipped":
                undone = [segment for segment in kept if segment.step == record["step"]]
            else:
                continue
            lost.update(undone)
            kept = [segment for segment in kept if segment not in lost]
    return lost


def _launches(attempts: list[Attempt], supervisors: list[float]) -> list[float]:
    """When each attempt began: with its supervisor, if that was started for it."""
    launches, earlier = [], 0.0
    for attempt in attempts:
        launches.append(
            min((time for time in supervisors if earlier < time <= attempt.started), default=attempt.started)
        )
        earlier = attempt.end
    return launches


def _classify(
    attempts: list[Attempt],
    launches: list[float],
    lost: set[Segment],
    median: float | None,
    deaths: list[float],
    hangs: list[float],
) -> tuple[list[tuple[float, float, str]], float]:
    """Start, length and class of all that happened, and the seconds between a stop and its continuation.

    `deaths` are the moments at which the supervisor saw a process end, `hangs` those at which one was found to hang.
    """
    timeline: list[tuple[float, float, str]] = []

    def book(start: float, seconds: float, name: str) -> None:
        if seconds <= 0:
            return
        if timeline and timeline[-1][2] == name:
            timeline[-1] = (timeline[-1][0], timeline[-1][1] + seconds, name)
        else:
            timeline.append((start, seconds, name))

    away = 0.0
    for attempt, launch, following in zip(attempts, launches, [*launches[1:], math.inf], strict=True):
        book(launch, attempt.started - launch, "import")
        first, usual = _first_step(attempt), median
        for segment in attempt.segments:
            if segment in lost:
                # Other ranks wait in a step until one that hangs is found.
                waited = max((time - segment.start for time in hangs if segment.start < time <= segment.end), default=0)
                book(segment.start, waited, "detect")
                book(segment.start + waited, segment.seconds - waited, "lost")
            elif segment.activity == "compute" and segment.step == first and usual is not None:
                kept = min(segment.seconds, usual)
                usual -= kept
                book(segment.start, segment.seconds - kept, "compile")
                book(segment.end - kept, kept, "compute")
            else:
                book(segment.start, segment.seconds, segment.activity)
        booked = attempt.segments[-1].end if attempt.segments else attempt.started
        if hang := max((time for time in hangs if booked <= time <= following), default=0.0):
            book(booked, hang - booked, "detect")
            booked = hang
        book(booked, attempt.end - booked, "idle")
        ended = max(attempt.end, booked)
        if following == math.inf:
            break
        if attempt.reason in _CLEAN_ENDS:
            away += following - ended
            continue
        # What the process did between its last entry and its death is lost; afterwards nobody did anything.
        died = min((time for time in deaths if ended <= time <= following), default=ended)
        book(ended, died - ended, "lost")
        book(died, following - died, "restart")
    return timeline, away


def _repair_times(failed: Attempt, following: Attempt, lost: set[Segment]) -> tuple[float, float] | None:
    """Seconds to the end of the first step after a restart, from the last step that survived and from the failure."""
    first = _first_step(following)
    if first is None:
        return None
    repaired = max(s.end for s in following.segments if s.activity == "compute" and s.step == first)
    survived = [s.end for s in failed.segments if s.activity == "compute" and s.step is not None and s not in lost]
    return repaired - max(survived, default=failed.started), repaired - failed.end


def _first_step(attempt: Attempt) -> int | None:
    return next((s.step for s in attempt.segments if s.activity == "compute" and s.step is not None), None)


def _step_times(attempt: Attempt, lost: Collection[Segment] = ()) -> dict[Any, float]:
    """Seconds of computing for each step but the attempt's first, which also warms up."""
    times: dict[Any, float] = defaultdict(float)
    first = _first_step(attempt)
    for segment in attempt.segments:
        if segment.activity == "compute" and segment.step not in (None, first) and segment not in lost:
            times[segment.step] += segment.seconds
    return times


def _checkpoints(attempts: list[Attempt], lost: set[Segment], median: float | None) -> dict[str, float]:
    """How many saves, how many failed, seconds a save held up later steps, took in all, and slowed the steps beside it.

    A save after the last step of an attempt holds up none.
    """
    notes = [note for attempt in attempts for note in attempt.noted("saved")]
    beside: list[float] = []
    stalls, held_up = 0.0, 0
    for attempt in attempts:
        spans = [(note["time"] - note["seconds"], note["time"]) for note in attempt.noted("saved")]
        end = max((s.end for s in attempt.segments if s.activity == "compute"), default=-math.inf)
        stalls += sum(s.seconds for s in attempt.segments if s.activity == "checkpoint" and s.start < end)
        held_up += sum(start < end for start, _ in spans)
        times = _step_times(attempt, lost)
        steps = {segment.step for segment in attempt.segments if _within(segment.start, spans)}
        beside.extend(time for step, time in times.items() if step in steps)
    return {
        "saves": len(notes),
        "failed": sum(note["error"] is not None for note in notes),
        "stall_per_save": stalls / held_up if held_up else 0.0,
        "seconds_per_save": statistics.fmean([note["seconds"] for note in notes]) if notes else 0.0,
        "slowdown_of_steps_beside": statistics.median(beside) / median - 1 if beside and median else 0.0,
    }


def _within(time: float, spans: list[tuple[float, float]]) -> bool:
    """Whether a time is in one of several spans that are in order and apart."""
    index = bisect(spans, (time,)) - 1
    return index >= 0 and time < spans[index][1]


def _rank_times(attempts: list[Attempt]) -> dict[str, float]:
    """The median and the 95th percentile of a rank's steps, and its share of time spent waiting for others."""
    times = sorted(time for attempt in attempts for time in _step_times(attempt).values())
    spent: dict[str, float] = defaultdict(float)
    for segment in (segment for attempt in attempts for segment in attempt.segments):
        spent[segment.activity] += segment.seconds
    if not times:
        return {}
    waiting = spent["communication"] / (spent["communication"] + spent["compute"])
    return {"median": statistics.median(times), "p95": times[int(0.95 * (len(times) - 1))], "waiting": waiting}


def _rank(path: Path) -> int:
    return int(path.stem.removeprefix("rank-"))


def _mean(values: list[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
