import json
import random
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from kilonova.cli.train import app
from kilonova.core.config import load_config
from kilonova.core.errors import ConfigError
from kilonova.recipes import find_recipe
from kilonova.train.recipe import TrainRecipe
from kilonova.train.scaling.study import ScalingStudy, run_study

SHAPE = {
    "model_type": "qwen3",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}


@pytest.fixture
def study(tiny_tokenizer_directory: Path, tmp_path: Path) -> Path:
    generator = random.Random(0)
    words = generator.choices(["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"], k=20_000)
    (tmp_path / "text.txt").write_text(" ".join(words))
    base = {
        "objective": "pretrain",
        "output": "replaced",
        "model": {"tokenizer": str(tiny_tokenizer_directory), "config": SHAPE},
        "data": {
            "root": str(tmp_path),
            "cache": str(tmp_path / "cache"),
            "sequence_length": 32,
            "sources": [{"name": "text", "path": "text.txt"}],
            "validation": [{"name": "check", "path": "text.txt"}],
        },
        "optimizer": {"lr": 0.01},
        "steps": 1,
        "batch_size": 4,
        "micro_batch_size": 4,
        "device": "cpu",
        "compile": False,
        "threads": 1,
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    tree = {
        "base": str(tmp_path / "base.yaml"),
        "output": str(tmp_path / "study"),
        "overrides": ["schedule.decay_fraction=0.5"],
        "sizes": [{"name": "small", "config": {}}, {"name": "wide", "config": {"hidden_size": 32}}],
        "tokens": [640, 1280, 2560],
        "held_out": {"size": {"name": "wider", "config": {"hidden_size": 48}}, "tokens": 5120},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_trains_the_ladder_once_and_predicts_the_held_out_run(study: Path, tmp_path: Path) -> None:
    picture = tmp_path / "study.png"
    first = CliRunner().invoke(
        app, ["scaling", str(study), "--picture", str(picture), "--json"], catch_exceptions=False
    )
    result = json.loads(first.stdout)
    assert [point["tokens"] for point in result["points"]] == [640, 1280, 2560] * 2
    assert result["points"][0]["parameters"] < result["points"][3]["parameters"] < result["held_out"]["parameters"]
    assert result["held_out"]["tokens"] == 5120
    low, high = result["predicted_interval"]
    assert low <= high
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "study/scaling.json").read_text()) == result

    logs = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("log.jsonl")}
    assert len(logs) == 7
    again = run_study(study).to_dict()
    assert again == result | {
        "points": again["points"],
        "alpha_interval": tuple(result["alpha_interval"]),
        "beta_interval": tuple(result["beta_interval"]),
        "predicted_interval": tuple(result["predicted_interval"]),
    }
    assert logs == {path: path.stat().st_mtime_ns for path in logs}


def test_the_shipped_study_is_a_study_of_a_shipped_recipe() -> None:
    study = load_config(ScalingStudy, find_recipe("scaling/micro"))
    for rung in (*study.sizes, study.held_out.size):
        shape = [f"model.config.{key}={json.dumps(value)}" for key, value in rung.config.items()]
        load_config(TrainRecipe, find_recipe(study.base), [*study.overrides, *shape, *rung.overrides])


def test_equal_names_are_refused(study: Path) -> None:
    with pytest.raises(ConfigError, match="names must differ"):
        run_study(study, ["held_out.size.name=small"])
