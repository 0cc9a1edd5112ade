"""Whole runs on several ranks end where the same run on one does."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.train.parallel.conftest import launch

from kilonova.train.run import train

ADAMW = {"name": "adamw", "lr": 0.003}
MUON = {"name": "muon", "lr": 0.003, "muon_lr": 0.01}
EAGER_REDUCTION = {"frequency": "micro_batch", "bucket_megabytes": 0.0, "separate_group": True}
# name: ranks, model, optimiser, micro-batch, parallel
RUNS = {
    "accumulated": (2, "qwen3", ADAMW, 1, {}),
    "every_micro_batch": (
        2,
        "llama",
        ADAMW,
        2,
        {"reshard_after_forward": False, "forward_prefetch": 1, "backward_prefetch": 2, "reduction": EAGER_REDUCTION},
    ),
    "muon": (2, "qwen3", MUON, 4, {}),
    "tensor_tied": (2, "qwen3", ADAMW, 8, {"tensor": 2}),
    "tensor_untied": (2, "llama", ADAMW, 2, {"tensor": 2}),
    "context": (2, "qwen3", ADAMW, 2, {"context": 2}),
    "experts": (2, "qwen3_moe", ADAMW, 2, {"expert": 2}),
    "hybrid_sharded": (4, "qwen3", ADAMW, 1, {"data_parallel_replicate": 2, "reduction": EAGER_REDUCTION}),
    "hybrid_muon": (4, "qwen3", MUON, 1, {"data_parallel_replicate": 2}),
    "tensor_and_sharded": (4, "qwen3", MUON, 2, {"tensor": 2}),
    "context_and_sharded": (4, "llama", ADAMW, 1, {"context": 2}),
    "tensor_and_context": (4, "llama", ADAMW, 4, {"tensor": 2, "context": 2}),
    "experts_and_sharded": (4, "qwen3_moe", ADAMW, 1, {"expert": 2}),
}


SLOW = ("muon", "tensor_untied", "hybrid_muon", "context_and_sharded", "tensor_and_context", "experts_and_sharded")
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in RUNS]


@pytest.fixture(scope="module")
def outputs(recipe: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The output folder of a run, or of one it is compared with; asking for it makes all runs that are as fast."""
    found: dict[str, Path] = {}

    def output(name: str) -> Path:
        if name in found:
            return found[name]
        tasks = []
        for other, (ranks, model, optimizer, micro_batch, parallel) in RUNS.items():
            if (other in SLOW) != (name in SLOW):
                continue
            changes = {"optimizer": optimizer, "micro_batch_size": micro_batch, "parallel": parallel}
            path = recipe(other, model, **changes)
            tasks.append({"kind": "train", "ranks": ranks, "recipe": str(path)})
            found[other] = path.with_suffix("")
            reference = reference_of(other)
            if reference not in found:
                path = recipe(reference, model, optimizer=optimizer)
                train(path)
                found[reference] = path.with_suffix("")
        launch(tmp_path_factory.mktemp("logs"), tasks)
        return found[name]

    return output


def reference_of(name: str) -> str:
    _, model, optimizer, _, _ = RUNS[name]
    return f"{model}-{optimizer['name']}"


def log(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradient_norms_are_those_of_one_rank(outputs: Callable[[str], Path], name: str) -> None:
    found, expected = log(outputs(name)), log(outputs(reference_of(name)))
    assert [record["step"] for record in found] == [1, 2, 3, 4, 4]
    for mine, other in zip(found[:4], expected[:4], strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], abs=1e-5)
        assert mine["tokens"] == other["tokens"]
    assert found[4]["validation"]["check"] == pytest.approx(expected[4]["validation"]["check"], abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_exported_model_is_that_of_one_rank(outputs: Callable[[str], Path], name: str) -> None:
    found = load_file(outputs(name) / "model/model.safetensors")
    expected = load_file(outputs(reference_of(name)) / "model/model.safetensors")
    assert found.keys() == expected.keys()
    # AdamW's first steps turn any gradient into one of size one, so rounding of tiny gradients shows.
    worst = max(float((found[key] - expected[key]).abs().max()) for key in found)
    assert worst < 1e-4
    moved = max(float(expected[key].abs().max()) for key in expected)
    assert moved > 0.1
    record = json.loads((outputs(name) / "model/training.json").read_text())
    reference = json.loads((outputs(reference_of(name)) / "model/training.json").read_text())
    assert record["parameters"] == reference["parameters"]
    assert record["flops"] == reference["flops"]
