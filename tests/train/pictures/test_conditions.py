"""Training a flow with every condition: what the network is given, and what the run makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.train.conftest import Ended

from kilonova.data.pictures.examples import Example
from kilonova.data.pictures.masking import hide
from kilonova.data.pictures.palette import to_lab
from kilonova.models.condition import ControlType
from kilonova.train.build import build_run, load_recipe
from kilonova.train.pictures.conditions import collate, prepare
from kilonova.train.pictures.flow import FlowObjective
from kilonova.train.run import train

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
CONDITIONS = "flow.conditions={inpainting: 0.3, control: 0.25, references: 0.25, palette: 0.5, try_on: 0.5}"
SOURCES = ("pictures.worlds=[{scenes: 8, weight: 0.5}]", "pictures.dolls=[{dolls: 4, weight: 0.5}]")
SHORTCUT = ("flow.shortcut=0.3", "model.config.step_size_embeds=true")
ALL = (CONDITIONS, *SOURCES, *SHORTCUT, "batch_size=16", "micro_batch_size=8")


def built(recipe: Path, *overrides: str) -> FlowObjective:
    _, objective = build_run(load_recipe(recipe, overrides))
    assert isinstance(objective, FlowObjective)
    generator = torch.Generator().manual_seed(0)
    for parameter in objective.trained.parameters():
        torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    return objective


def pictures(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(256, size=(count, 16, 24, 4), dtype=np.uint8))


def test_each_part_is_that_of_its_example_and_absent_elsewhere() -> None:
    plain, holed, edges, seen, first, second = pictures(6)
    mask = np.zeros((16, 24), bool)
    mask[:8, :12] = True
    colours = np.array([[200, 10, 10], [20, 30, 240]], np.uint8)
    examples = [
        Example(picture=plain, caption="plain", palette=colours),
        Example(picture=holed, caption="holed", mask=mask, references=(first, second), similarity=0.6),
        Example(picture=seen, caption="led", control=edges[..., :3], control_type="CANNY_EDGE", control_strength=0.3),
    ]
    given = collate([prepare(example) for example in examples])
    assert given.pictures.shape == (7, 4, 16, 24)
    # In place of an encoder, the mean of every 8 x 8 pixels.
    latents = torch.nn.functional.avg_pool2d(given.pictures, 8)
    expected = [np.stack([x, hide(x, mask), first, edges]) for x in pictures(6)]
    condition = given.condition(latents)
    assert condition is not None

    def encoded(picture: np.ndarray) -> torch.Tensor:
        values = torch.from_numpy(picture).permute(2, 0, 1).double() / 127.5 - 1
        return values.unflatten(2, (3, 8)).unflatten(1, (2, 8)).mean((2, 4)).float()

    for row, picture in enumerate((plain, holed, seen)):
        torch.testing.assert_close(latents[given.targets[row]], encoded(picture))
    torch.testing.assert_close(condition.masked_latents[1], encoded(expected[1][1]))
    assert condition.mask[1, 0].tolist() == [[1, 0.5, 0], [0, 0, 0]]
    assert (condition.mask[[0, 2]] == 1).all()
    assert not condition.masked_latents[[0, 2]].any()
    opaque = np.concatenate((edges[..., :3], np.full((16, 24, 1), 255, np.uint8)), axis=-1)
    torch.testing.assert_close(condition.control[2], encoded(opaque))
    assert condition.control_type.tolist() == [ControlType.NONE, ControlType.NONE, ControlType.CANNY_EDGE]
    assert condition.control_strength.tolist() == pytest.approx([0, 0, 0.3])
    torch.testing.assert_close(condition.references[1], torch.stack([encoded(first), encoded(second)]))
    assert condition.references_mask.tolist() == [[False] * 2, [True] * 2, [False] * 2]
    assert condition.similarity.tolist() == pytest.approx([0, 0.6, 0])
    np.testing.assert_array_equal(condition.palette[0], to_lab(colours))
    assert condition.palette_mask.tolist() == [[True, True], [False, False], [False, False]]
    words = collate([prepare(Example(picture=plain, caption="plain"))])
    assert words.condition(latents) is None


def test_a_batch_of_all_conditions_is_learnt_as_one_by_one(recipe: Path) -> None:
    objective = built(recipe, *ALL)
    one_by_one = built(recipe, *ALL, "micro_batch_size=1")
    batches, alone = objective.micro_batches(2), one_by_one.micro_batches(2)
    assert sum(objective.num_items(batch) for batch in batches) == 16
    parts = [len(set(batch.given.control_type.tolist()) & {0}) for batch in batches]
    assert len(batches) > 3
    assert any(parts)
    assert not all(parts)
    total = sum(objective.loss(batch).total for batch in batches)
    single = sum(one_by_one.loss(batch).total for batch in alone)
    assert float(total.detach()) == pytest.approx(float(single.detach()), rel=1e-4)


def test_shortcuts_are_learnt_from_two_halves_by_the_average(recipe: Path) -> None:
    objective = built(recipe, *SHORTCUT, "flow.shortcut=0.99", "flow.text_dropout=0", "pictures.sizes=[[32, 32]]")
    model = objective.trained
    for name, buffer in model.average.named_buffers():
        if name != "num_updates":
            torch.nn.init.normal_(buffer, std=0.07, generator=torch.Generator().manual_seed(len(name)))
    (batch, _) = objective.micro_batches(1)
    sizes, times = batch.step_sizes.double(), batch.timesteps.double()
    assert (sizes > 0).all()
    assert torch.equal(torch.log2(sizes), torch.log2(sizes).round())
    assert torch.equal(times / sizes, (times / sizes).round())
    assert ((sizes <= times) & (times <= 1)).all()
    with torch.no_grad():
        latents = objective._autoencoder.encode(batch.given.pictures)
        generators = [torch.Generator().manual_seed(seed) for seed in batch.noise_seeds]
        noise = torch.stack([torch.randn(latents.shape[1:], generator=generator) for generator in generators])
        column = batch.timesteps.view(-1, 1, 1, 1)
        noisy = (1 - column) * latents + column * noise

        def asked(x: torch.Tensor, t: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
            text = objective._texts.encode(batch.captions)
            return model.transformer(x, t, text.states, text.mask, None, d)

        half = batch.step_sizes / 2
        base = torch.where(half > 1 / 128, half, 0.0)
        with model.average.applied(model):
            first = asked(noisy, batch.timesteps, base)
            second = asked(noisy - half.view(-1, 1, 1, 1) * first, batch.timesteps - half, base)
        expected = (asked(noisy, batch.timesteps, batch.step_sizes) - (first + second) / 2).square().mean((1, 2, 3))
        assert float(objective.loss(batch).total) == pytest.approx(float(expected.sum()), rel=1e-4)


def test_every_parameter_has_a_gradient_whatever_is_drawn(recipe: Path) -> None:
    objective = built(recipe, "flow.conditions.palette=0.001", *SHORTCUT)
    objective.loss(objective.micro_batches(0)[0]).total.backward()
    assert all(parameter.grad is not None for parameter in objective.trained.parameters())


def test_a_run_with_every_condition_that_was_cut_short_goes_on_to_the_same_bits(recipe: Path, tmp_path: Path) -> None:
    steps = [*ALL, "batch_size=8", "steps=4", "evaluate_every=4"]
    whole = load_file(train(recipe, steps) / WEIGHTS)
    output = f"output={tmp_path / 'cut'}"
    train(recipe, [*steps, output, "checkpoint_every=2", "keep_checkpoints=9"])
    for path in sorted((tmp_path / "cut" / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(path)
    resumed = load_file(train(recipe, [*steps, output]) / WEIGHTS)
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name


def test_two_ranks_learn_what_one_learns(recipe: Path, tmp_path: Path, fork: Callable[..., list[Ended]]) -> None:
    changes = [*ALL, "steps=1", "evaluate_every=1", "optimizer={name: adamw, lr: 0.001, eps: 0.01}"]
    code = "import sys; from kilonova.train.supervisor import supervise; "
    code += "supervise(sys.argv[1], sys.argv[2:], processes=2)"
    (ended,) = fork(code, str(recipe), f"output={tmp_path / 'two'}", *changes)
    assert ended.status == 0, ended.stderr
    one = load_file(train(recipe, changes) / WEIGHTS)
    for name, tensor in load_file(tmp_path / "two" / "model" / WEIGHTS).items():
        torch.testing.assert_close(tensor, one[name], rtol=0, atol=2e-5)


def test_kept_latents_are_those_of_the_same_views(recipe: Path, tmp_path: Path) -> None:
    views = (*ALL, "flow.views=2")
    kept = (*views, f"flow.cache={tmp_path / 'cache'}")
    fresh, cached = built(recipe, *views), built(recipe, *kept)
    folders = sorted((tmp_path / "cache").iterdir())
    assert len(folders) == 3 * 2
    written = [folder.stat().st_mtime_ns for folder in folders]
    for step in range(2):
        for mine, other in zip(fresh.micro_batches(step), cached.micro_batches(step), strict=True):
            assert mine.captions == other.captions
            assert not mine.given.encoded
            assert other.given.encoded
            loss, same = fresh.loss(mine).total.item(), cached.loss(other).total.item()
            assert same == pytest.approx(loss, rel=2e-3)
            theirs = vars(other.given)
            for name in ("targets", "kept", "references", "mask", "similarity", "palette", "control_strength"):
                torch.testing.assert_close(vars(mine.given)[name], theirs[name], msg=name)
    # It is read again, unless what it depends on has changed.
    again = built(recipe, *kept)
    assert [folder.stat().st_mtime_ns for folder in sorted((tmp_path / "cache").iterdir())] == written
    assert again.micro_batches(1)[0].captions == cached.micro_batches(1)[0].captions
    built(recipe, *kept, "flow.conditions.palette=0.4")
    assert len(list((tmp_path / "cache").iterdir())) == 12
