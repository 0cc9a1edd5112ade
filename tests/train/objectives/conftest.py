"""Small preference pairs, and objectives over them built from recipes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORDS = ("fox", "dog", "judge", "cat", "house", "river", "seven", "north")


def preference_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Pairs that are easy to tell apart: the chosen answer repeats the prompt's word, the rejected one another."""
    generator = random.Random(seed)
    rows = []
    for _ in range(count):
        word, other = generator.sample(WORDS, 2)
        times = generator.choice((1, 1, 2, 3))
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"say {word}"}],
                "chosen": [{"role": "assistant", "content": f"{word}!"}],
                "rejected": [{"role": "assistant", "content": " ".join([other] * times) + "?"}],
            }
        )
    return rows


@pytest.fixture
def pair_recipe(tiny_micro_directory: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A recipe over small preference pairs that starts from the tiny model; `changes` replace its values."""
    for name, count, seed in (("train", 60, 0), ("held_out", 40, 1)):
        rows = preference_rows(count, seed)
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(objective: str, **changes: Any) -> dict[str, Any]:
        sources = [{"name": "train", "path": "train.jsonl", "format": "preference"}]
        held_out = [{"name": "held-out", "path": "held_out.jsonl", "format": "preference"}]
        return {
            "objective": objective,
            "output": str(tmp_path / "run"),
            "model": {"init_from": str(tiny_micro_directory)},
            "data": {
                "root": str(tmp_path),
                "cache": str(tmp_path / "cache"),
                "sequence_length": 320,
                "sources": sources,
                "validation": held_out,
            },
            "optimizer": {"lr": 0.003, "weight_decay": 0.0},
            "schedule": {"warmup_steps": 2},
            "steps": 30,
            "batch_size": 4,
            "micro_batch_size": 2,
            "device": "cpu",
            "dtype": "float32",
            "compile": False,
            "threads": 1,
            "log_every": 1,
            "evaluate_every": 1000,
        } | changes

    return make
