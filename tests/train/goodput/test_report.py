import json
from itertools import pairwise
from pathlib import Path

import pytest

from kilonova.core.errors import DataError
from kilonova.train.goodput import ledger as ledger_module
from kilonova.train.goodput.ledger import Ledger
from kilonova.train.goodput.report import goodput_report
from kilonova.train.signals import Interrupted


class Clockwork:
    """Writes a rank's ledger as a process would, with times of our choosing."""

    def __init__(self, run: Path, name: str = "rank-0") -> None:
        self.path = run / "ledger" / f"{name}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.now = 1000.0

    def write(self, **record) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def start(self, restored: int, *, loading: float = 2.0) -> None:
        self.write(note="started", time=self.now)
        self.spend("import", 3)
        self.spend("restore", loading)
        self.note("restored", step=restored)

    def spend(self, activity: str, seconds: float, step: int | None = None) -> None:
        record = {"activity": activity, "start": self.now, "seconds": seconds}
        self.write(**(record if step is None else record | {"step": step}))
        self.now += seconds

    def steps(self, *steps: int, seconds: float = 1.0) -> None:
        for step in steps:
            self.spend("data_wait", 0.25, step)
            self.spend("compute", seconds, step)

    def note(self, note: str, **values) -> None:
        self.write(note=note, time=self.now, **values)


def test_every_second_of_a_run_with_faults_is_in_its_class(tmp_path: Path) -> None:
    run = Clockwork(tmp_path)
    run.start(0)
    run.note("machine", flops_per_step=50.0, peak_flops=100.0)
    run.steps(0, seconds=4.0)  # three of them to warm up
    run.steps(1, 2, 3)
    run.spend("checkpoint", 0.5)
    run.note("saved", step=4, seconds=1.5, error=None)
    run.steps(4, 5)
    run.spend("data_wait", 0.25, 6)  # killed in the middle of step 6,
    killed = run.now
    run.now += 0.75  # three quarters of a second into its computing,
    supervisor = Clockwork(tmp_path, "supervisor")
    supervisor.write(note="started", time=996.0)
    supervisor.write(note="child ended", time=run.now)
    run.now += 2.0  # and started again two seconds later
    restarted = run.now
    run.start(4)
    run.steps(4, seconds=2.0)
    first_done = run.now
    run.steps(5, 6, 7)
    run.now += 8.0
    run.note("hang", step=8)
    run.now += 1.0
    again = run.now
    run.start(8)
    run.steps(8, seconds=1.0)
    run.spend("evaluation", 5)
    run.spend("checkpoint", 2)  # nothing waits for the last one
    run.note("saved", step=9, seconds=2.5, error=None)
    run.spend("export", 1)
    run.note("ended", reason="finished")

    report = goodput_report(tmp_path)
    assert report.wall == run.now - 996
    assert sum(report.seconds.values()) == pytest.approx(report.wall)
    assert report.seconds == pytest.approx(
        {
            "compute": 9.0,
            "communication": 0.0,
            "data_wait": 9 * 0.25,
            "checkpoint": 0.5 + 2,
            "evaluation": 5.0,
            "lost": 2 * 1.25 + 0.25 + 0.75,
            "detect": 8.0,
            "restart": 2.0 + 1.0,
            "import": 4.0 + 9.0,
            "rendezvous": 0.0,
            "build": 0.0,
            "compile": 4.0,
            "restore": 6.0,
            "export": 1.0,
            "idle": 0.0,
        }
    )
    assert report.goodput == pytest.approx(9 / report.wall)
    assert (report.steps, report.faults, report.median_step) == (9, 2, 1.0)
    assert report.mtbf == pytest.approx(report.wall / 2)
    survived = killed - 0.25 - 2 * 1.25 - 0.5
    first, second = first_done - survived, (again + 5 + 1.25) - (again - 9)
    assert report.mttr == pytest.approx((first + second) / 2)
    assert report.restart == pytest.approx(((first_done - killed) + (5 + 1.25 + 1)) / 2)
    assert restarted < first_done
    assert report.mfu == pytest.approx(9 * 50 / (9 * 100))
    assert report.checkpoints == pytest.approx(
        {"saves": 2, "failed": 0, "stall_per_save": 0.5, "seconds_per_save": 2.0, "slowdown_of_steps_beside": 0.0}
    )


def test_skipped_and_rewound_steps_are_lost(tmp_path: Path) -> None:
    run = Clockwork(tmp_path)
    run.start(0)
    run.steps(0, 1)
    run.note("skipped", step=1)
    run.steps(2, 3, 4)
    run.note("rewound", step=3)
    run.steps(3, 4)
    run.note("ended", reason="finished")
    report = goodput_report(tmp_path)
    assert report.seconds["lost"] == 3 * 1.25
    assert report.seconds["compute"] == 4.0
    assert (report.steps, report.skipped_steps, report.faults) == (4, 1, 0)
    assert (report.mttr, report.mtbf, report.mfu) == (None, None, None)


def test_the_night_between_a_stop_and_its_continuation_is_no_part_of_the_run(tmp_path: Path) -> None:
    run = Clockwork(tmp_path)
    run.start(0)
    run.steps(0, 1)
    run.note("ended", reason="stopped")
    run.now += 50_000
    run.start(2)
    run.steps(2)
    report = goodput_report(tmp_path)
    assert report.wall == 2 * 5 + 3 * 1.25
    assert report.faults == 0


def test_a_slow_rank_shows(tmp_path: Path) -> None:
    for rank, seconds in ((0, 1.0), (1, 2.0), (10, 1.0)):
        run = Clockwork(tmp_path, f"rank-{rank}")
        run.start(0)
        for step in range(5):
            run.spend("communication", 3.0 - seconds, step)
            run.spend("compute", seconds, step)
    ranks = goodput_report(tmp_path).ranks
    assert list(ranks) == [0, 1, 10]
    assert ranks[1] == {"median": 2.0, "p95": 2.0, "waiting": pytest.approx(1 / 3)}
    assert ranks[0]["waiting"] == pytest.approx(2 / 3)


def test_times_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ledger"):
        goodput_report(tmp_path)
    run = Clockwork(tmp_path)
    run.start(0)
    run.steps(0, 1)
    run.now -= 1.0
    run.steps(2)
    with pytest.raises(DataError, match="add up to"):
        goodput_report(tmp_path)


def keep_ledger(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.enter("build")
        started = ledger.now()
        while ledger.now() < started + 0.01:
            pass
        ledger.enter("idle")
        with ledger.during("compute", 0):
            while ledger.now() < started + 0.03:
                pass
            with ledger.during("data_wait"):
                while ledger.now() < started + 0.1:
                    pass
        raise Interrupted("enough")


def test_a_ledger_is_a_chain_without_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a process that has not kept one before.
    monkeypatch.setattr(ledger_module, "_process", None)
    path = tmp_path / "ledger" / "rank-0.jsonl"
    with pytest.raises(Interrupted):
        keep_ledger(path)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    segments = [record for record in records if "activity" in record]
    # A slow machine may spend a moment between two of them.
    busy = [(segment["activity"], segment.get("step")) for segment in segments if segment["activity"] != "idle"]
    assert busy[:4] == [("import", None), ("build", None), ("compute", 0), ("data_wait", 0)]
    assert segments[0]["start"] == pytest.approx(records[0]["time"], abs=1e-3)
    for earlier, later in pairwise(segments):
        assert later["start"] == pytest.approx(earlier["start"] + earlier["seconds"], abs=1e-5)
    assert records[-1]["reason"] == "stopped"
    report = goodput_report(tmp_path)
    assert report.seconds["data_wait"] == pytest.approx(0.07, abs=0.03)


def test_only_the_first_ledger_of_a_process_books_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_process", None)
    with Ledger(tmp_path / "first.jsonl") as first:
        first.enter("build")
        middle = first.now()
        assert first.started < middle - 0.1
    with Ledger(tmp_path / "second.jsonl") as second:
        assert second.started >= middle - 0.01
