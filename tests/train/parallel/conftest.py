"""Several real processes that together are the ranks of a run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

SHAPES = {
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True},
    "llama": {"model_type": "llama", "tie_word_embeddings": False},
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "tie_word_embeddings": False,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "norm_topk_prob": True,
    },
}
COMMON = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
}


def shape(name: str) -> dict:
    return COMMON | SHAPES[name]


def launch(folder: Path, tasks: list[dict]) -> None:
    """Run tasks, each as its number of `ranks`; fails with what was printed."""
    path = folder / "tasks.json"
    path.write_text(json.dumps(tasks))
    command = [sys.executable, str(Path(__file__).parent / "worker.py"), str(path)]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-6000:]


@pytest.fixture(scope="session")
def recipe(tiny_tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a recipe of a few steps over short packed documents, with the given keys replaced."""
    root = tmp_path_factory.mktemp("recipes")
    words = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "wizards", "vex", "judges")
    generator = random.Random(0)
    rows = [{"text": " ".join(generator.choices(words, k=generator.randrange(5, 60)))} for _ in range(60)]
    for name, kept in (("rows", rows), ("check", rows[:6])):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))

    def write(name: str, model: str, **changes: object) -> Path:
        tree = {
            "objective": "pretrain",
            "output": str(root / name),
            "model": {"tokenizer": str(tiny_tokenizer_directory), "config": shape(model)},
            "data": {
                "root": str(root),
                "cache": str(root / "cache"),
                "sequence_length": 32,
                "sources": [{"name": "rows", "path": "rows.jsonl"}],
                "validation": [{"name": "check", "path": "check.jsonl"}],
            },
            "optimizer": {"name": "adamw", "lr": 0.003},
            "schedule": {"warmup_steps": 2, "decay_fraction": 0.25},
            "steps": 4,
            "batch_size": 8,
            "micro_batch_size": 2,
            "device": "cpu",
            "dtype": "float32",
            "compile": False,
            "threads": 1,
            "log_every": 1,
            "evaluate_every": 100,
            "checkpoint_every": 100,
        }
        path = root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree | changes))
        return path

    return write
