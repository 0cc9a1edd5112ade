"""`kilonova train plan` reads shapes and sizes from a recipe or a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilonova.cli.train import app
from kilonova.core.errors import ConfigError

SHAPE = [
    "model.config.vocab_size=4096",
    "micro_batch_size=4",
    "batch_size=8",
    "data.sequence_length=256",
    "dtype=bfloat16",
]


def planned(*arguments: str) -> dict:
    result = CliRunner().invoke(app, ["plan", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_recipe_and_its_replacements() -> None:
    recipe = planned("micro/pretrain", *SHAPE)
    assert recipe["tokens"] == 4 * 256
    assert recipe["chosen"] is None
    assert planned("micro/pretrain", *SHAPE, "--batch-size", "8", "--sequence-length", "128")["tokens"] == 8 * 128
    shared = planned("micro/pretrain", *SHAPE, "--ranks", "4")
    assert shared["state_bytes"] == recipe["state_bytes"] // 4
    assert planned("micro/pretrain", *SHAPE, "--budget-gib", "8")["chosen"] == "none"
    # What fits into half of what `none` needs is something else.
    half = recipe["policies"][0]["total_bytes"] / 2**31
    limited = planned("micro/pretrain", *SHAPE, "--budget-gib", str(half))
    assert limited["chosen"] not in ("none", "selective")


def test_checkpoint_directory(tiny_micro_directory: Path) -> None:
    found = planned(str(tiny_micro_directory))
    assert found["tokens"] == 512
    assert [policy["policy"] for policy in found["policies"]] == ["none", "selective", "ssc", "ssc8", "full"]


def test_table_names_the_choice() -> None:
    arguments = ["plan", "micro/pretrain", *SHAPE]
    result = CliRunner().invoke(app, [*arguments, "--budget-gib", "8"], catch_exceptions=False)
    assert "the fastest that fits into 8 GiB: memory: none" in result.stdout
    assert "ssc8, inexact" in result.stdout
    result = CliRunner().invoke(app, [*arguments, "--budget-gib", "0.01"], catch_exceptions=False)
    assert "nothing fits into 0.01 GiB" in result.stdout


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        ("parallel.tensor=2", r"parallel\.tensor: the plan knows data-parallel ranks only"),
        ("memory=most", "memory"),
        ("memory=budget", "memory_budget"),
    ],
)
def test_what_cannot_be_planned_is_said(replacement: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned("micro/pretrain", *SHAPE, replacement)
