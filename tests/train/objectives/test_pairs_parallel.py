"""Preference objectives on two ranks end where the same run on one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from tests.train.parallel.conftest import launch

from kilonova.train.run import train

CASES = {"reward": {}, "dpo": {}, "reward-context": {"context": 2}, "dpo-tensor": {"tensor": 2}}


def test_two_ranks_learn_what_one_learns(pair_recipe, tmp_path: Path) -> None:
    def write(name: str, **changes) -> Path:
        # A large eps, as AdamW's first steps turn any gradient, however tiny, into one of size one.
        optimizer = {"lr": 0.003, "eps": 0.01, "weight_decay": 0.0}
        changes |= {"steps": 3, "output": str(tmp_path / name), "evaluate_every": 2, "optimizer": optimizer}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(pair_recipe(name.split("-")[0], **changes)))
        return path

    for objective in ("reward", "dpo"):
        train(write(objective))
    tasks = []
    for name, parallel in CASES.items():
        tree = yaml.safe_load(write(f"{name}-2", parallel=parallel).read_text())
        # The reference is computed by the ranks together, not read from the run on one.
        tree["data"]["cache"] = str(tmp_path / f"cache-{name}")
        (tmp_path / f"{name}-2.yaml").write_text(yaml.safe_dump(tree))
        tasks.append({"kind": "train", "ranks": 2, "recipe": str(tmp_path / f"{name}-2.yaml")})
    launch(tmp_path, tasks)

    for name in CASES:
        expected, found = (
            [json.loads(line) for line in (tmp_path / output / "log.jsonl").read_text().splitlines()]
            for output in (name.split("-")[0], f"{name}-2")
        )
        assert len(found) == len(expected) == 5
        for mine, other in zip(found, expected, strict=True):
            mine, other = (record.get("validation", record) for record in (mine, other))
            for key in other.keys() - {"tokens_per_second", "mfu"}:
                assert mine[key] == pytest.approx(other[key], rel=1e-3, abs=1e-3), (name, key)
        one, two = (
            load_file(tmp_path / output / "model/model.safetensors") for output in (name.split("-")[0], f"{name}-2")
        )
        assert one.keys() == two.keys()
        assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-3
