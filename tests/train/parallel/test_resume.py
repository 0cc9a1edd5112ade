"""A run goes on with another number of ranks and another plan."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.train.parallel.conftest import launch

KEYS = {
    "optimizer": {"name": "muon", "lr": 0.003, "muon_lr": 0.01},
    "schedule": {"warmup_steps": 2, "decay_fraction": 0.0},
}


TENSOR, EXPERT = "parallel.tensor=2", "parallel.expert=2"
# model, and the stages of a run: ranks, steps, overrides. Of two with as many steps the second has nothing left to do:
# it writes what it has loaded.
MOVES = {
    "two_one_two": ("qwen3", [(2, 2, []), (1, 2, []), (1, 4, []), (2, 4, []), (2, 6, [])]),
    "two_four_one": ("qwen3", [(2, 2, []), (4, 2, [TENSOR]), (4, 4, [TENSOR]), (1, 4, []), (1, 6, [])]),
    "experts": ("qwen3_moe", [(2, 2, []), (4, 2, [EXPERT]), (4, 4, [EXPERT]), (1, 4, []), (1, 6, [])]),
}
SLOW = ("two_four_one", "experts")


def losses(output: Path) -> list[float]:
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in MOVES]
)
def test_a_run_goes_on_exactly_where_it_was(recipe: Callable[..., Path], tmp_path: Path, name: str) -> None:
    model, stages = MOVES[name]
    whole = recipe(f"uninterrupted-{name}", model, **KEYS)
    moved = recipe(f"moved-{name}", model, micro_batch_size=1, **KEYS)
    tasks = [
        {
            "kind": "train",
            "ranks": ranks,
            "recipe": str(moved),
            "overrides": [f"steps={steps}", *overrides],
            "keep": str(tmp_path / str(stage)),
        }
        for stage, (ranks, steps, overrides) in enumerate(stages)
    ]
    reference = {"kind": "train", "ranks": 1, "recipe": str(whole), "overrides": ["steps=6"]}
    launch(tmp_path, [*tasks, reference])

    kept = [load_file(tmp_path / str(stage) / "model.safetensors") for stage in range(len(stages))]
    for (before, after), (left, right) in zip(pairwise(stages), pairwise(kept), strict=True):
        assert left.keys() == right.keys()
        same = {torch.equal(left[key], right[key]) for key in left}
        assert same == {before[1] == after[1]}

    expected = whole.with_suffix("")
    assert losses(moved.with_suffix("")) == pytest.approx(losses(expected), abs=1e-5)
    final = load_file(expected / "model/model.safetensors")
    assert max(float((kept[-1][key] - final[key]).abs().max()) for key in final) < 1e-4
