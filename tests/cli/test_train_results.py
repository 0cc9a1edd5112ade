"""`kilonova train report` and `kilonova train export`, on a run that was interrupted by a fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from kilonova.cli.train import app
from kilonova.core.errors import CheckpointError, ConfigError, DataError

STEPS = 6


@pytest.fixture(scope="module")
def run_folder(tiny_tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps with a checkpoint every two; the run died before the fourth and was started again."""
    root = tmp_path_factory.mktemp("run")
    rows = [{"text": f"the quick brown fox number {number} jumps over a lazy dog"} for number in range(40)]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    }
    recipe = {
        "objective": "pretrain",
        "output": str(root / "output"),
        "model": {"tokenizer": str(tiny_tokenizer_directory), "config": shape},
        "data": {
            "root": str(root),
            "cache": str(root / "cache"),
            "sequence_length": 32,
            "sources": [{"name": "rows", "path": "rows.jsonl"}],
        },
        "optimizer": {"lr": 0.003},
        "steps": STEPS,
        "batch_size": 2,
        "micro_batch_size": 2,
        "device": "cpu",
        "dtype": "float32",
        "compile": False,
        "threads": 1,
        "log_every": 1,
        "checkpoint_every": 2,
        "keep_checkpoints": 5,
        "faults": {"at": [{"kind": "exception", "step": 3}]},
    }
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    assert "injected at step 3" in str(CliRunner().invoke(app, [str(path)]).exception)
    assert CliRunner().invoke(app, [str(path)]).exit_code == 0
    return root / "output"


def test_report_prints_json_a_table_and_writes_a_page(run_folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(run_folder), "--json"])
    assert result.exit_code == 0, result.exception
    report = json.loads(result.stdout)
    assert (report["steps"], report["faults"]) == (STEPS, 1)
    assert sum(report["seconds"].values()) == pytest.approx(report["wall"], rel=0.01)
    assert report["seconds"]["lost"] > 0

    result = CliRunner().invoke(app, ["report", str(run_folder), "--output", str(tmp_path)])
    assert result.exit_code == 0, result.exception
    assert "goodput" in result.stdout
    page = (tmp_path / "report.html").read_text()
    assert "Where the time went" in page
    assert "<h2>Loss</h2>" in page
    assert f"lost: {report['seconds']['lost'] * 1000:.3g} ms" in page


def test_report_needs_a_ledger(tmp_path: Path) -> None:
    assert isinstance(CliRunner().invoke(app, ["report", str(tmp_path)]).exception, DataError)


def test_export_writes_any_checkpoint_as_the_run_writes_its_last(run_folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(run_folder), "--output", str(tmp_path / "last")])
    assert result.exit_code == 0, result.exception
    assert result.stdout.strip() == str(tmp_path / "last")
    ours = load_file(tmp_path / "last/model.safetensors")
    theirs = load_file(run_folder / "model/model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert {path.name for path in (tmp_path / "last").iterdir()} == {
        path.name for path in (run_folder / "model").iterdir()
    }

    arguments = ["export", str(run_folder), "--step", "2", "--output", str(tmp_path / "early")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    early = load_file(tmp_path / "early/model.safetensors")
    assert any(not torch.equal(early[name], theirs[name]) for name in theirs)
    record = json.loads((tmp_path / "early/training.json").read_text())
    assert (record["steps"], record["tokens"]) == (2, 2 * 2 * 32)

    arguments[3] = "5"
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, CheckpointError)
    assert "[2, 4, 6]" in str(error)


def test_torchrun_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    error = CliRunner().invoke(app, ["micro/pretrain", "--max-restarts", "2"]).exception
    assert isinstance(error, ConfigError)
    assert "torchrun" in str(error)
