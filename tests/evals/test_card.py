"""Model cards from small records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from kilonova.core.errors import CheckpointError, DataError
from kilonova.evals.card import LIMITS, write_card
from kilonova.evals.run import Report, Score


def stage(objective: str, earlier: dict | None) -> dict:
    return {
        "recipe": f"micro-{objective}", "objective": objective, "parameters": 5_245_696, "steps": 1200,
        "tokens": 60_600_000,
        "rows_in_one_pass": 10, "sequence_length": 512, "flops": 1.9e15, "seconds": 7200.0, "device": "x86_64",
        "dtype": "float32", "torch": "2", "validation_loss": {"books": 3.21},
        "sources": [{"name": f"src-{objective}", "path": "p", "weight": 0.5, "origin": "host/some|repo",
        "licence": "CC0",
                     "tokens": 12345, "documents": 67, "bytes": 8}],
        "earlier": earlier,
    }  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path, tiny_micro_directory: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny_micro_directory / "config.json").read_bytes())
    (folder / "training.json").write_text(json.dumps(stage("sft", stage("pretrain", None))))
    return folder


def evaluation() -> dict:
    report = Report("micro", 5_245_696, limit=300, seed=0, version="1.2.3", context_length=1024)
    report.scores.append(
        Score("sst2", "classification", "accuracy", 0.8125, 0.75, 0.86, 300, {"majority": 0.51}, "MIT", "a/b@c")
    )
    report.scores.append(
        Score("books", "language", "bits_per_byte", 1.5, 1.4, 1.6, 9, {"zstd -19": 2.5}, "PD", "d/e@f", "novels")
    )
    return report.to_dict()


def test_the_card_holds_what_the_records_hold(directory: Path) -> None:
    data_report = {"by_source": {"trec": {"rows": 4321, "estimated_tokens": 1, "origin": "o", "licence": "not stated"}}}
    samples = [{"prompt": "Two\nlines?", "answer": "I am | Micro."}]
    path = write_card(directory, "Kilonova Micro", evaluation=evaluation(), samples=samples, data_report=data_report)
    text = path.read_text()
    assert path == directory / "README.md"
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "apache-2.0"
    assert front["pipeline_tag"] == "text-generation"
    for piece in (
        "# Kilonova Micro", "5.2 M parameters", "| sst2 | accuracy | 0.812 | 0.750 to 0.860 | 300 | majority 0.510 |",
        "| books | bits per byte | 1.500 |", "novels; d/e@f, PD", "1.90e+15", "| 2.00 |", "4,321", "> Two\n> lines?",
        "I am | Micro.", "host/some\\|repo", "`kilonova eval` 1.2.3", *LIMITS,
    ):  # fmt: skip
        assert piece in text
    assert text.index("micro-pretrain") < text.index("micro-sft")
    assert "- sst2: a/b@c, MIT." in text


def test_every_table_row_has_as_many_cells_as_its_header(directory: Path) -> None:
    text = write_card(directory, "M", evaluation=evaluation()).read_text()
    width = None
    for line in text.splitlines():
        cells = len(line.replace("\\|", "").split("|")) if line.startswith("|") else None
        assert cells is None or width is None or cells == width
        width = cells


def test_parts_without_a_record_are_left_out(directory: Path) -> None:
    (directory / "training.json").unlink()
    text = write_card(directory, "M").read_text()
    assert "## Training" not in text
    assert "## Evaluation" not in text
    assert "## Samples" not in text
    assert "## Limits" in text


def test_bad_records_are_errors_and_write_nothing(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        write_card(tmp_path / "empty", "M")
    with pytest.raises(DataError, match="version"):
        write_card(directory, "M", evaluation={"scores": []})
    (directory / "training.json").write_text("[1]")
    with pytest.raises(DataError, match="JSON object"):
        write_card(directory, "M")
    assert not (directory / "README.md").exists()
