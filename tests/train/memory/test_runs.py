"""Policies as recipes name them, on one rank and on several."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from tests.train.parallel.conftest import launch, shape

from kilonova.core.config import load_config
from kilonova.core.errors import ConfigError
from kilonova.train.recipe import TrainRecipe
from kilonova.train.run import export_checkpoint, train

# name: model, memory, parallel
RUNS = {
    "ssc": ("qwen3", "ssc", {}),
    "ssc_context": ("llama", "ssc", {"context": 2}),
    "ssc_experts": ("qwen3_moe", "ssc", {"expert": 2}),
    "ssc8_every_layer_gathered_alone": ("llama", "ssc8", {"reduction": {"bucket_megabytes": 0.0}}),
    "full_tensor": ("qwen3", "full", {"tensor": 2}),
}


@pytest.fixture
def recipe(tiny_tokenizer_directory: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe of a few steps over short packed documents, with the given keys replaced."""
    generator = random.Random(0)
    words = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog")
    rows = [{"text": " ".join(generator.choices(words, k=generator.randrange(5, 40)))} for _ in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(name: str, model: str, **changes: object) -> Path:
        tree = {
            "objective": "pretrain",
            "output": str(tmp_path / name),
            "model": {"tokenizer": str(tiny_tokenizer_directory), "config": shape(model)},
            "data": {
                "root": str(tmp_path),
                "cache": str(tmp_path / "cache"),
                "sequence_length": 32,
                "sources": [{"name": "rows", "path": "rows.jsonl"}],
            },
            # A large eps, as AdamW's first steps turn any gradient, however tiny, into one of size one.
            "optimizer": {"lr": 0.003, "eps": 0.01},
            "steps": 3,
            "batch_size": 4,
            "micro_batch_size": 1,
            "device": "cpu",
            "dtype": "float32",
            "compile": False,
            "threads": 1,
            "checkpoint_every": 100,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree | changes))
        return path

    return write


def difference(found: Path, expected: Path) -> float:
    """The largest difference of two models' weights."""
    left, right = (load_file(path / "model.safetensors") for path in (found, expected))
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def test_two_ranks_learn_what_one_learns_without_a_policy(recipe: Callable[..., Path], tmp_path: Path) -> None:
    expected = {model: train(recipe(model, model)) for model in ("qwen3", "llama", "qwen3_moe")}
    tasks = []
    for name, (model, memory, parallel) in RUNS.items():
        path = recipe(name, model, memory=memory, parallel=parallel)
        tasks.append({"kind": "train", "ranks": 2, "recipe": str(path)})
    launch(tmp_path, tasks)
    for name, (model, memory, _) in RUNS.items():
        assert difference(tmp_path / name / "model", expected[model]) < (1e-4 if memory == "ssc8" else 1e-5), name


def test_a_run_can_go_on_and_be_exported_under_another_policy(recipe: Callable[..., Path], tmp_path: Path) -> None:
    expected = train(recipe("plain", "qwen3", steps=4))
    train(recipe("changed", "qwen3", steps=2, memory="ssc"))
    found = train(recipe("changed", "qwen3", steps=4, memory="full"))
    assert difference(found, expected) < 1e-5
    exported = export_checkpoint(tmp_path / "changed", tmp_path / "exported")
    assert difference(exported, found) == 0


@pytest.mark.slow
def test_compiled_runs_learn_the_same(recipe: Callable[..., Path], tmp_path: Path) -> None:
    expected = train(recipe("plain", "qwen3"))
    for name, changes in {
        "ssc8": {"memory": "ssc8"},
        "budget": {"memory": "budget", "memory_budget": 0.5},
    }.items():
        found = train(recipe(name, "qwen3", compile=True, **changes))
        assert difference(found, expected) < (1e-4 if name == "ssc8" else 1e-5), name
    # Its policy needs compilation, which exporting does without.
    export_checkpoint(tmp_path / "budget", tmp_path / "exported")


@pytest.mark.slow
def test_compiled_layers_on_two_ranks_learn_the_same(recipe: Callable[..., Path], tmp_path: Path) -> None:
    expected = train(recipe("plain", "llama"))
    path = recipe("compiled", "llama", memory="ssc", compile=True)
    launch(tmp_path, [{"kind": "train", "ranks": 2, "recipe": str(path)}])
    assert difference(tmp_path / "compiled" / "model", expected) < 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory": "some"}, "memory"),
        ({"memory": "budget", "memory_budget": 0.5}, "needs compile: true"),
        ({"memory": "budget", "compile": True}, r"memory_budget: .* from 0 \(keep nothing\) to 1"),
        (
            {"memory": "budget", "memory_budget": 1.5, "compile": True},
            r"memory_budget: .* from 0 \(keep nothing\) to 1",
        ),
        ({"memory": "ssc", "memory_budget": 0.5}, "only memory: budget has one"),
        ({"memory": "ssc", "parallel": {"tensor": 2}}, r"parallel\.tensor 2 .* use none, full or budget"),
    ],
)
def test_values_that_do_not_go_together(recipe: Callable[..., Path], changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(TrainRecipe, recipe("bad", "llama", **changes))
