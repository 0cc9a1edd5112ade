"""A whole run of training a flow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from kilonova.core.errors import ConfigError
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.components import load_folder
from kilonova.models.uvit.model import UViT
from kilonova.studio.settings import SamplingSettings
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.build import build_run, load_recipe
from kilonova.train.pictures.flow import FlowObjective
from kilonova.train.run import export_checkpoint, train

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def test_a_run_learns_and_leaves_a_folder(recipe: Path) -> None:
    directory = train(recipe)
    log = [json.loads(line) for line in (recipe.parent / "run" / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 60
    _, fresh = build_run(load_recipe(recipe))
    learnt = json.loads((directory / "training.json").read_text())["validation_loss"]["held-out"]
    assert learnt < 0.9 * fresh.evaluate()["held-out"]
    parts = load_folder(directory)
    assert isinstance(parts["transformer"], UViT)
    assert isinstance(parts["tokenizer"], Tokenizer)
    assert isinstance(parts["vae"], ImageAutoencoder)
    settings = SamplingSettings.from_dict(parts["scheduler"], "scheduler_config.json")
    assert (settings.base_tokens, settings.sizes, settings.few_step) == (16, ((32, 32), (64, 16)), False)
    original = load_file(recipe.parent / "autoencoder" / "diffusion_pytorch_model.safetensors")
    for name, tensor in parts["vae"].state_dict().items():
        assert torch.equal(tensor, original[name]), name


def test_the_error_is_that_of_the_velocity(recipe: Path) -> None:
    _, objective = build_run(load_recipe(recipe))
    assert isinstance(objective, FlowObjective)
    batch = objective.micro_batches(0)[0]
    loss = objective.loss(batch).total
    model, autoencoder = objective.trained, objective._autoencoder
    # A fresh U-ViT answers 0.
    expected = 0.0
    with torch.no_grad():
        latents = autoencoder.encode(batch.given.pictures).double()
    for index, seed in enumerate(batch.noise_seeds):
        noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(seed)).double()
        expected += float((noise - latents[index]).square().mean())
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert isinstance(model.transformer, UViT)


def test_micro_batches_change_nothing(recipe: Path) -> None:
    def step(micro_batch_size: int) -> tuple[float, list[str], list[torch.Tensor]]:
        _, objective = build_run(load_recipe(recipe, [f"micro_batch_size={micro_batch_size}"]))
        torch.manual_seed(0)
        for parameter in objective.trained.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        losses = [objective.loss(batch).total for batch in objective.micro_batches(7)]
        total = torch.stack(losses).sum()
        total.backward()
        captions = [caption for batch in objective.micro_batches(7) for caption in batch.captions]
        gradients = [p.grad for p in objective.trained.parameters() if p.grad is not None]
        return float(total), captions, gradients

    (whole, captions, gradients), (parts, same, others) = step(8), step(2)
    assert parts == pytest.approx(whole, rel=1e-4)
    assert captions == same
    for mine, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_some_captions_are_left_out_and_times_are_spread(recipe: Path) -> None:
    _, objective = build_run(load_recipe(recipe, ["flow.text_dropout=0.3"]))
    batches = [batch for step in range(40) for batch in objective.micro_batches(step)]
    captions = [caption for batch in batches for caption in batch.captions]
    assert 0.2 < sum(not caption for caption in captions) / len(captions) < 0.4
    times = torch.cat([batch.timesteps for batch in batches])
    assert 0.4 < float(times.mean()) < 0.6
    assert len({seed for batch in batches for seed in batch.noise_seeds}) == 320


def test_a_run_that_was_cut_short_goes_on_to_the_same_bits(recipe: Path, tmp_path: Path) -> None:
    steps = ["steps=10", "evaluate_every=10"]
    whole = load_file(train(recipe, steps) / WEIGHTS)
    output = f"output={tmp_path / 'cut'}"
    train(recipe, [*steps, output, "checkpoint_every=5", "keep_checkpoints=9"])
    for path in sorted((tmp_path / "cut" / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(path)
    resumed = load_file(train(recipe, [*steps, output]) / WEIGHTS)
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name


def test_the_average_is_exported_also_from_a_checkpoint_and_trained_on(recipe: Path, tmp_path: Path) -> None:
    directory = train(recipe, ["steps=6"])
    exported = load_file(export_checkpoint(tmp_path / "run", tmp_path / "exported") / WEIGHTS)
    for name, tensor in load_file(directory / WEIGHTS).items():
        assert torch.equal(tensor, exported[name]), name
    tree = yaml.safe_load(recipe.read_text())
    tree |= {"model": {"init_from": str(directory)}, "output": str(tmp_path / "more")}
    recipe.write_text(yaml.safe_dump(tree))
    _, objective = build_run(load_recipe(recipe))
    finished = json.loads((directory / "training.json").read_text())["validation_loss"]["held-out"]
    assert objective.evaluate()["held-out"] == pytest.approx(finished, rel=1e-5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("flow.text_dropout=1.5", "flow.text_dropout"),
        ("model.config._class_name=UVit", "UViT"),
        ("model.config._class_name=TextTransformer", "model.config"),
        ("model.config.in_channels=8", "in_channels: 8, but its input has 4"),
        ("flow.text_encoder.hidden_size=32", "text_hidden_size: 16, but its input has 32"),
        ("flow.autoencoder=null", "flow.autoencoder: a fresh model needs it"),
        ("flow.shortcut=0.2", "flow.shortcut: .*step_size_embeds"),
        ("flow.cache=somewhere", "flow.cache: .*flow.views"),
        ("flow.views=3", "flow.views: 3 .* 2 sizes"),
        ("flow.conditions.palette=2", "palette: 2"),
        ("flow.sampling.styles.FLAT=3", "flow.sampling: .*styles"),
        ("flow.sampling.step=3", "step"),
        ("pictures.sizes=[[24, 32]]", "sizes: .*multiples of 16"),
    ],
)
def test_mistakes_are_named(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_run(load_recipe(recipe, [override]))
