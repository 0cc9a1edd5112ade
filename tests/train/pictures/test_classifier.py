"""A whole run of training a classifier of attributes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tests.data.pictures.discs import write_discs

from kilonova.core.errors import DataError
from kilonova.data.pictures.world import WorldPictures, WorldSource
from kilonova.data.world.sampling import SceneConfig
from kilonova.models.classifier.model import AttributeClassifier
from kilonova.models.components import load_component
from kilonova.train.build import build_run, load_recipe
from kilonova.train.pictures.classifier import ClassifierObjective
from kilonova.train.pictures.classifier_data import LabelledScenes, to_batch, world_heads
from kilonova.train.run import train


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Two dozen steps of a tiny classifier on discs and scenes."""
    write_discs(tmp_path / "discs.parquet")
    source = {"name": "discs", "path": "discs.parquet", "captions": ["{name}"]}
    tree = {
        "objective": "classifier",
        "output": str(tmp_path / "run"),
        "model": {"config": {"image_size": 16, "block_out_channels": [16, 16], "norm_num_groups": 4}},
        "classifier": {"columns": ["style", "name"]},
        "pictures": {
            "root": str(tmp_path),
            "sources": [{**source, "where": {"split": ["train"]}, "weight": 100}],
            "worlds": [{"scenes": 4, "weight": 1}],
            "validation": [{**source, "name": "held-out", "where": {"split": ["eval"]}}],
            "validation_worlds": [{"name": "words", "sampling": {"task": "text"}, "scenes": 4}],
        },
        "optimizer": {"lr": 0.02, "weight_decay": 0.0},
        "steps": 24,
        "batch_size": 8,
        "micro_batch_size": 4,
        "log_every": 1,
        "compile": False,
        "device": "cpu",
        "dtype": "float32",
        "seed": 3,
    }
    path = tmp_path / "classifier.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_run_learns_what_columns_say(recipe: Path) -> None:
    directory = train(recipe)
    record = json.loads((directory / "training.json").read_text())
    assert record["validation_loss"].keys() == {
        "held-out style", "held-out name", "words background", "words word", "words letters"
    }  # fmt: skip
    assert record["validation_loss"]["held-out name"] == 1
    model = load_component(directory)
    assert isinstance(model, AttributeClassifier)
    assert model.config.heads["name"] == ("blue", "green", "red")
    assert model.config.heads["style"] == ("flat-3d", "plain")
    assert set(model.config.heads) == {"style", "name", *world_heads()}


def test_gradients_are_those_of_the_whole_batch(recipe: Path) -> None:
    def gradients(micro_batch_size: int) -> list[torch.Tensor]:
        _, objective = build_run(load_recipe(recipe, [f"micro_batch_size={micro_batch_size}"]))
        for batch in objective.micro_batches(0):
            objective.loss(batch).total.backward()
        return [parameter.grad for parameter in objective.trained.parameters() if parameter.grad is not None]

    for whole, parts in zip(gradients(8), gradients(2), strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5)


def test_the_loss_counts_each_attribute_where_it_is_known(recipe: Path) -> None:
    _, objective = build_run(load_recipe(recipe))
    assert isinstance(objective, ClassifierObjective)
    heads = {"style": ("a", "b"), "name": ("c", "d", "e")}
    picture = np.zeros((8, 8, 4), np.uint8)
    batch = to_batch([(picture, {"style": "b", "name": "e"}), (picture, {"name": "unknown"})], heads, 16)
    assert {name: labels.tolist() for name, labels in batch.labels.items()} == {"style": [1, -1], "name": [2, -1]}
    # Fresh heads find all values equally likely.
    for step_batch in objective.micro_batches(0):
        known = {name: int((labels >= 0).sum()) for name, labels in step_batch.labels.items()}
        sizes = {name: len(values) for name, values in objective.trained.config.heads.items()}
        expected = sum(count * np.log(sizes[name]) for name, count in known.items())
        assert objective.loss(step_batch).total.item() == pytest.approx(expected, rel=1e-5)


def test_scenes_give_things_and_wholes_with_what_they_are() -> None:
    pictures = WorldPictures(WorldSource(sampling=SceneConfig(task="two_objects")))
    scenes = LabelledScenes(pictures)
    whole, labels = scenes.view(4, 64, None)
    assert whole.shape == (128, 128, 4)
    assert labels["word"] == "none"
    assert labels["background"] in world_heads()["background"]
    assert "letters" not in labels
    cut, labels = scenes.view(5, 64, np.random.default_rng(0))
    assert labels == {"texture": pictures.scene(5).objects[5 // 2 % 2].texture}
    assert cut.shape[0] == cut.shape[1]
    assert 0.1 < (cut[..., 3] == 255).mean() < 1
    word = LabelledScenes(WorldPictures(WorldSource(sampling=SceneConfig(task="text")))).view(5, 64, None)[1]
    assert word["word"] in world_heads()["word"][1:]


def test_a_column_that_is_not_there_is_named(recipe: Path) -> None:
    with pytest.raises(DataError, match="designer"):
        build_run(load_recipe(recipe, ["classifier.columns=[designer]"]))
