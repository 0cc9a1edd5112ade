"""A whole run of training an autoencoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.data.pictures.discs import write_discs
from tests.train.conftest import Ended

from kilonova.core.errors import ConfigError, DataError
from kilonova.models.autoencoder.alpha import premultiply
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.components import load_component
from kilonova.train.build import build_run, load_recipe
from kilonova.train.pictures.context import PictureContext
from kilonova.train.pictures.reconstruction import peak_signal_to_noise
from kilonova.train.run import export_checkpoint, train


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Thirty steps of a tiny autoencoder on six discs."""
    write_discs(tmp_path / "discs.parquet")
    source = {"name": "discs", "path": "discs.parquet", "captions": ["{name}"]}
    tree = {
        "objective": "autoencoder",
        "output": str(tmp_path / "run"),
        "model": {
            "config": {
                "latent_channels": 4,
                "block_out_channels": [16, 16],
                "encoder_layers": [1, 1],
                "decoder_layers": [1, 1],
                "refine_channels": 8,
                "norm_num_groups": 4,
            }
        },
        "pictures": {
            "root": str(tmp_path),
            "sizes": [[32, 32]],
            "sources": [{**source, "where": {"split": ["train"]}}],
            "validation": [{**source, "name": "held-out", "where": {"split": ["eval"]}}],
        },
        "optimizer": {"lr": 0.01},
        "steps": 30,
        "batch_size": 6,
        "micro_batch_size": 3,
        "evaluate_every": 6,
        "log_every": 1,
        "compile": False,
        "device": "cpu",
        "seed": 3,
    }
    path = tmp_path / "autoencoder.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_run_learns_and_leaves_a_component(recipe: Path) -> None:
    directory = train(recipe)
    log = [json.loads(line) for line in (recipe.parent / "run" / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 30
    assert losses[-1] < 0.7 * losses[0]
    record = json.loads((directory / "training.json").read_text())
    assert record["validation_loss"]["held-out PSNR"] > 5
    assert record["sources"][0]["pictures"] == 5
    assert record["tokens"] == 30 * 6 * 16
    assert record["flops"] > 0

    model = load_component(directory)
    assert isinstance(model, ImageAutoencoder)
    _, objective = build_run(load_recipe(recipe))
    images = torch.cat([batch.images for step in range(4) for batch in objective.micro_batches(step)])
    with torch.no_grad():
        latents = model.encode(images)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=0.3, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=0.3, rtol=0)


def test_gradients_are_those_of_the_whole_batch(recipe: Path) -> None:
    def gradients(micro_batch_size: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        _, objective = build_run(load_recipe(recipe, [f"micro_batch_size={micro_batch_size}"]))
        for batch in objective.micro_batches(0):
            objective.loss(batch).total.backward()
        return [parameter.grad for parameter in objective.trained.parameters() if parameter.grad is not None]

    for whole, parts in zip(gradients(6), gradients(2), strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5)


def test_two_ranks_learn_what_one_learns(recipe: Path, tmp_path: Path, fork: Callable[..., list[Ended]]) -> None:
    code = "import sys; from kilonova.train.supervisor import supervise; "
    code += "supervise(sys.argv[1], [sys.argv[2], 'steps=4'], processes=2)"
    (ended,) = fork(code, str(recipe), f"output={tmp_path / 'two'}")
    assert ended.status == 0, ended.stderr
    one = load_file(train(recipe, ["steps=4"]) / "diffusion_pytorch_model.safetensors")
    for name, tensor in load_file(tmp_path / "two" / "model" / "diffusion_pytorch_model.safetensors").items():
        torch.testing.assert_close(tensor, one[name], rtol=0, atol=1e-3)


def test_a_run_that_was_cut_short_goes_on_to_the_same_bits(recipe: Path, tmp_path: Path) -> None:
    whole = load_file(train(recipe) / "diffusion_pytorch_model.safetensors")
    output = f"output={tmp_path / 'cut'}"
    train(recipe, [output, "checkpoint_every=5", "keep_checkpoints=9"])
    for path in sorted((tmp_path / "cut" / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(path)
    resumed = load_file(train(recipe, [output]) / "diffusion_pytorch_model.safetensors")
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name


def test_a_checkpoint_can_be_exported_and_trained_on(recipe: Path, tmp_path: Path) -> None:
    directory = train(recipe)
    exported = export_checkpoint(tmp_path / "run", tmp_path / "exported")
    for name, tensor in load_file(directory / "diffusion_pytorch_model.safetensors").items():
        assert torch.equal(tensor, load_file(exported / "diffusion_pytorch_model.safetensors")[name])
    tree = yaml.safe_load(recipe.read_text())
    tree |= {"model": {"init_from": str(directory)}, "output": str(tmp_path / "more"), "steps": 1}
    recipe.write_text(yaml.safe_dump(tree))
    _, objective = build_run(load_recipe(recipe))
    started = objective.evaluate()["held-out PSNR"]
    finished = json.loads((directory / "training.json").read_text())["validation_loss"]["held-out PSNR"]
    assert started == pytest.approx(finished, abs=0.01)


def test_the_ratio_it_reports_is_that_of_the_pictures(recipe: Path) -> None:
    context, objective = build_run(load_recipe(recipe))
    assert isinstance(context, PictureContext)
    assert isinstance(objective.trained, ImageAutoencoder)
    (batch,) = context.validation_batches()["held-out"]
    with torch.no_grad():
        found = objective.trained.decode_premultiplied(objective.trained.encode(batch.images))
    ratio = peak_signal_to_noise(found, premultiply(batch.images)).mean()
    assert objective.evaluate() == {"held-out PSNR": pytest.approx(float(ratio))}


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("objective=autoencode", ConfigError, "objective: 'autoencode' is not one of .*autoencoder"),
        ("pictures.sizes.0.0=30", ConfigError, "pictures.sizes"),
        ("pictures.sources.0.path=none.parquet", DataError, "no file"),
        ("model.config.latent_channel=3", ConfigError, "latent_channels"),
        ("data.sequence_length=3", ConfigError, "data"),
        ("parallel.tensor=2", ConfigError, "parallel.tensor: .* give 1"),
    ],
)
def test_mistakes_are_named(recipe: Path, override: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_run(load_recipe(recipe, [override]))
