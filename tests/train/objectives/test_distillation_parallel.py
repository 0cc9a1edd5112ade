"""A student on two ranks learns from its teacher what it learns on one."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.train.objectives.test_distillation import log_of, recipe
from tests.train.parallel.conftest import launch

from kilonova.train.run import train

CASES = {"whole": {}, "top-k": {"top_k": 8}}
PLANS = {"data": {}, "tensor": {"tensor": 2}, "context": {"context": 2}}


def test_two_ranks_learn_what_one_learns(
    tiny_micro_directory: Path, tiny_tokenizer_directory: Path, tmp_path: Path
) -> None:
    # A large eps, as AdamW's first steps turn any gradient, however tiny, into one of size one.
    changes = {"steps": 3, "optimizer": {"lr": 0.003, "eps": 0.01, "weight_decay": 0.0}, "evaluate_every": 2}
    tasks = []
    for case, section in CASES.items():
        section = {"teacher": str(tiny_micro_directory), "hard_weight": 0.25, **section}
        train(recipe(tmp_path, tiny_tokenizer_directory, section, case, **changes))
        for plan, parallel in PLANS.items():
            path = recipe(tmp_path, tiny_tokenizer_directory, section, f"{case}-{plan}", parallel=parallel, **changes)
            # The teacher's tokens are found by the ranks together, not read from the run on one.
            path.write_text(path.read_text().replace(str(tmp_path / "cache"), str(tmp_path / f"cache-{plan}")))
            tasks.append({"kind": "train", "ranks": 2, "recipe": str(path)})
    launch(tmp_path, tasks)

    for case in CASES:
        expected, one = log_of(tmp_path / case), load_file(tmp_path / case / "model/model.safetensors")
        for plan in PLANS:
            found = log_of(tmp_path / f"{case}-{plan}")
            for mine, other in zip(found, expected, strict=True):
                mine, other = (record.get("validation", record) for record in (mine, other))
                for key in other.keys() - {"tokens_per_second", "mfu"}:
                    assert mine[key] == pytest.approx(other[key], rel=1e-3, abs=1e-3), (case, plan, key)
            two = load_file(tmp_path / f"{case}-{plan}" / "model/model.safetensors")
            assert one.keys() == two.keys()
            assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-3
