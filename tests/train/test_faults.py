"""Whole runs that meet faults, in real processes."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from kilonova.train.goodput.attempts import read_ledger
from kilonova.train.goodput.report import goodput_report
from kilonova.train.run import train

STEPS = 24


def recipe(root: Path, tokenizer: Path, name: str, **changes: Any) -> Path:
    rows = [{"text": f"the quick brown fox number {number} jumps over a lazy dog"} for number in range(80)]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = {
        "model_type": "qwen3",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    }
    tree = {
        "objective": "pretrain",
        "output": str(root / name),
        "model": {"tokenizer": str(tokenizer), "config": shape},
        "data": {
            "root": str(root),
            "cache": str(root / "cache"),
            "sequence_length": 32,
            "sources": [{"name": "rows", "path": "rows.jsonl"}],
        },
        "optimizer": {"name": "muon", "lr": 0.003, "muon_lr": 0.01},
        "steps": STEPS,
        "batch_size": 4,
        "micro_batch_size": 2,
        "device": "cpu",
        "dtype": "float32",
        "compile": False,
        "threads": 1,
        "log_every": 1,
        "checkpoint_every": 4,
    }
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree | changes))
    return path


_SUPERVISE = """
import sys
from kilonova.train.supervisor import supervise
supervise(sys.argv[1], processes=int(sys.argv[2]), max_restarts=int(sys.argv[3]))
"""


@pytest.fixture
def supervised(fork: Callable[..., list]) -> Callable[..., Any]:
    def run(path: Path, *, processes: int = 1, max_restarts: int = 0) -> Any:
        return fork(_SUPERVISE, str(path), str(processes), str(max_restarts))[0]

    return run


def events(output: Path) -> list[str]:
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [record["event"] for record in records if "event" in record]


def assert_same_model(left: Path, right: Path) -> None:
    ours, theirs = load_file(left / "model/model.safetensors"), load_file(right / "model/model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_survives_every_fault_and_ends_with_the_same_bits(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    nan = {"kind": "nan", "step": 2}
    calm = recipe(tmp_path, tiny_tokenizer_directory, "calm", faults={"at": [nan]})
    train(calm)
    assert events(tmp_path / "calm") == ["skipped step 2: gradient norm is nan"]

    faults = [
        nan,
        {"kind": "kill", "step": 6},
        {"kind": "exception", "step": 9},
        {"kind": "full_disk", "step": 10},
        {"kind": "corrupt", "step": 18},
        {"kind": "hang", "step": 21},
    ]
    path = recipe(tmp_path, tiny_tokenizer_directory, "faulty", faults={"at": faults}, stability={"step_timeout": 3.0})
    command = [sys.executable, "-m", "kilonova", "train", str(path), "--max-restarts", "4"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == str(tmp_path / "faulty/model")
    assert_same_model(tmp_path / "calm", tmp_path / "faulty")
    assert "injected at step 9" in ended.stderr
    assert "checkpoint of step 16 is corrupt" in ended.stderr
    assert any("could not be written: " in event and "No space left" in event for event in events(tmp_path / "faulty"))
    assert "before_step" in (tmp_path / "faulty/hang-rank-0.txt").read_text()

    report = goodput_report(tmp_path / "faulty")
    assert report.faults == 4
    assert (report.steps, report.skipped_steps, report.checkpoints["failed"]) == (STEPS - 1, 1, 1)
    assert sum(report.seconds.values()) == pytest.approx(report.wall, rel=0.01)
    # The supervisor's clock knows nothing of what the ranks booked.
    supervisor = read_ledger(tmp_path / "faulty/ledger/supervisor.jsonl")[0]
    assert report.wall == pytest.approx(supervisor.noted("child ended")[-1]["time"] - supervisor.started, rel=0.1)
    assert min(report.seconds[name] for name in ("compute", "lost", "restart", "detect", "restore")) > 0
    assert report.mttr > report.restart > 0


def test_a_killed_rank_and_a_hung_one_bring_all_back(
    tiny_tokenizer_directory: Path, tmp_path: Path, supervised: Callable[..., Any]
) -> None:
    killed, hung = ({"kind": kind, "step": step, "rank": 1} for kind, step in (("kill", 6), ("hang", 9)))
    for name, faults in (("calm", []), ("faulty", [killed, hung])):
        stability = {"step_timeout": 4.0}
        path = recipe(tmp_path, tiny_tokenizer_directory, name, faults={"at": faults}, steps=14, stability=stability)
        ended = supervised(path, processes=2, max_restarts=2)
        assert ended.status == 0, ended.stderr
    assert "ended with status -9; restart 1 of 2" in ended.stderr
    assert "before_step" in (tmp_path / "faulty/hang-rank-1.txt").read_text()
    assert_same_model(tmp_path / "calm", tmp_path / "faulty")
    report = goodput_report(tmp_path / "faulty")
    assert report.faults == 2
    assert report.seconds["detect"] > 2.0
    assert list(report.ranks) == [0, 1]
    saved = [path.name for path in (tmp_path / "faulty/checkpoints/step-00000014").iterdir()]
    assert {"__0_0.distcp", "__1_0.distcp"} < set(saved)


def test_a_bad_step_rewinds_and_leaves_out_its_rows(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    path = recipe(
        tmp_path,
        tiny_tokenizer_directory,
        "rewound",
        steps=12,
        stability={"bad_step": "rewind"},
        faults={"at": [{"kind": "nan", "step": 6}]},
    )
    train(path)
    assert events(tmp_path / "rewound") == [
        "went back from step 6 to 4, leaving out the rows between: gradient norm is nan"
    ]
    manifest = json.loads((tmp_path / "rewound/checkpoints/step-00000012/manifest.json").read_text())
    assert manifest["run"]["rows_ahead"] == 3
    losses: dict[int, list[float]] = {}
    for line in (tmp_path / "rewound/log.jsonl").read_text().splitlines():
        if "loss" in (record := json.loads(line)):
            losses.setdefault(record["step"], []).append(record["loss"])
    # Steps 5 and 6 were done twice, on other rows.
    assert {step for step, values in losses.items() if len(values) == 2} == {5, 6}
    assert all(first != second for first, second in (losses[5], losses[6]))
    assert goodput_report(tmp_path / "rewound").steps == 12


def test_a_run_that_keeps_failing_is_given_up(
    tiny_tokenizer_directory: Path, tmp_path: Path, supervised: Callable[..., Any]
) -> None:
    faults = {"at": [{"kind": "exception", "step": 1}, {"kind": "exception", "step": 2}]}
    path = recipe(tmp_path, tiny_tokenizer_directory, "failing", faults=faults)
    ended = supervised(path, max_restarts=1)
    assert ended.status == 1
    assert "gave up after 1 restarts" in ended.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"root": "nowhere", "sequence_length": 32, "sources": [{"name": "a", "path": "b"}]}}, "nowhere"),
        ({"stability": {"bad_step": "stop"}, "faults": {"at": [{"kind": "nan", "step": 1}]}}, "gradient norm is nan"),
    ],
)
def test_what_would_fail_again_is_not_started_again(
    tiny_tokenizer_directory: Path, tmp_path: Path, supervised: Callable[..., Any], changes: dict, message: str
) -> None:
    ended = supervised(recipe(tmp_path, tiny_tokenizer_directory, "wrong", **changes), max_restarts=5)
    assert ended.status == 1
    assert message in ended.stderr
    assert "would not if started again" in ended.stderr
    assert "restart" not in ended.stderr


_ENDED = """
import os, signal, sys, time
from pathlib import Path
from kilonova.train.supervisor import supervise

log = Path(sys.argv[2])
if (supervisor := os.fork()) == 0:
    supervise(sys.argv[1], max_restarts=3)
while not log.exists():
    time.sleep(0.02)
os.kill(supervisor, int(sys.argv[3]))
os.waitpid(supervisor, 0)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.skipif(sys.platform != "linux", reason="others do not tell a process that its parent died")
def test_the_end_of_the_supervisor_is_a_polite_one_of_its_ranks(
    tiny_tokenizer_directory: Path, tmp_path: Path, fork: Callable[..., list], number: signal.Signals
) -> None:
    path = recipe(tmp_path, tiny_tokenizer_directory, "ended", steps=4000, checkpoint_every=100_000)
    output = tmp_path / "ended"
    fork(_ENDED, str(path), str(output / "log.jsonl"), str(int(number)))
    rank = output / "ledger/rank-0.jsonl"
    deadline = time.monotonic() + 60
    while (reason := read_ledger(rank)[0].reason) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert reason == "stopped"
    assert len(read_ledger(rank)) == 1
    last = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()][-1]["step"]
    assert [file.name for file in (output / "checkpoints").glob("step-*")] == [f"step-{last:08d}"]
