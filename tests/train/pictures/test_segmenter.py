"""A whole run of training a segmenter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tests.data.pictures.discs import write_discs

from kilonova.core.errors import ConfigError
from kilonova.studio.mask_former import MaskFormer
from kilonova.train.build import build_run, load_recipe
from kilonova.train.pictures.segmenter import SegmenterObjective
from kilonova.train.run import train


@pytest.fixture
def recipe(tmp_path: Path, tiny_tokenizer_directory: Path) -> Path:
    """A tiny segmenter on two scenes, which are also what it is tried on."""
    write_discs(tmp_path / "discs.parquet")
    world = {"scenes": 2, "seed": 5, "sampling": {"task": "two_objects"}}
    tree = {
        "objective": "segmenter",
        "output": str(tmp_path / "run"),
        "model": {
            "config": {
                "block_out_channels": [16, 16, 32],
                "norm_num_groups": 4,
                "hidden_size": 32,
                "num_attention_heads": 2,
                "num_encoder_layers": 1,
                "num_fusion_layers": 1,
                "num_decoder_layers": 2,
                "num_queries": 8,
                "text_hidden_size": 16,
            }
        },
        "segmenter": {
            "tokenizer": str(tiny_tokenizer_directory),
            "text_encoder": {"intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            "ema_decay": 0.9,
        },
        "pictures": {
            "root": str(tmp_path),
            "sizes": [[48, 48]],
            "worlds": [world],
            "validation_worlds": [{**world, "name": "seen"}],
            "validation_pictures": 2,
        },
        "optimizer": {"name": "muon", "lr": 0.003, "muon_lr": 0.01, "betas": [0.9, 0.99], "weight_decay": 0.0},
        "schedule": {"warmup_steps": 10, "decay_fraction": 0.5},
        "steps": 4,
        "batch_size": 2,
        "micro_batch_size": 2,
        "evaluate_every": 1000,
        "log_every": 1,
        "compile": False,
        "device": "cpu",
        "threads": 1,
        "seed": 3,
    }
    path = tmp_path / "segmenter.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_handful_of_scenes_is_learnt_within_seconds(recipe: Path) -> None:
    _, objective = build_run(load_recipe(recipe, ["segmenter.ema_decay=0"]))
    before = objective.evaluate()
    optimizer = torch.optim.AdamW(objective.trained.parameters(), lr=5e-3, betas=(0.9, 0.99))
    batches = [objective.micro_batches(step)[0] for step in range(2)]
    for step in range(100):
        optimizer.zero_grad()
        (objective.loss(batches[step % 2]).total / 2).backward()
        torch.nn.utils.clip_grad_norm_(objective.trained.parameters(), 5.0)
        optimizer.step()
    objective.step_done()
    after = objective.evaluate()
    assert after.keys() == {"seen foreground IoU", "seen referring IoU", "seen PQ"}
    assert after["seen foreground IoU"] > 0.9
    assert after["seen PQ"] > max(0.5, before["seen PQ"])


def test_a_run_leaves_a_folder_that_answers_and_can_be_trained_on(recipe: Path) -> None:
    icons = '{name: discs, path: discs.parquet, captions: ["{name} disc", "{keywords}"]}'
    few = ["steps=3", "pictures.dolls=[{dolls: 3}]", f"pictures.icons=[{icons}]", "pictures.held_out_names=[star]"]
    directory = train(recipe, few)
    log = [json.loads(line) for line in (recipe.parent / "run" / "log.jsonl").read_text().splitlines()]
    assert {"class_loss", "mask_loss", "dice_loss", "foreground_loss", "conditional_share"} <= log[0].keys()
    record = json.loads((directory / "training.json").read_text())
    assert [source["name"] for source in record["sources"]] == ["discs", "world", "dolls"]
    assert record["held_out_names"] == ["star"]
    assert record["flops"] > 0
    segmenter = MaskFormer.load(directory)
    picture = np.random.default_rng(0).integers(256, size=(50, 90, 3)).astype(np.uint8)
    assert segmenter.refer(picture, "the red disc").shape == (50, 90)

    tree = yaml.safe_load(recipe.read_text())
    tree |= {"model": {"init_from": str(directory)}, "output": str(recipe.parent / "more")}
    recipe.write_text(yaml.safe_dump(tree))
    _, objective = build_run(load_recipe(recipe, few[1:]))
    assert objective.evaluate() == pytest.approx(record["validation_loss"], rel=1e-4)


def test_a_step_is_the_same_to_the_bit_whenever_it_is_taken(recipe: Path) -> None:
    def step(earlier: int) -> list[torch.Tensor]:
        torch.manual_seed(earlier)
        _, objective = build_run(load_recipe(recipe))
        for before in range(earlier):
            objective.micro_batches(before)
        objective.loss(objective.micro_batches(2)[0]).total.backward()
        return [p.grad for p in objective.trained.parameters() if p.grad is not None]

    assert all(torch.equal(mine, other) for mine, other in zip(step(0), step(2), strict=True))


def test_micro_batches_change_nothing(recipe: Path) -> None:
    def step(micro_batch_size: int) -> tuple[float, list[torch.Tensor]]:
        _, objective = build_run(load_recipe(recipe, [f"micro_batch_size={micro_batch_size}"]))
        total = torch.stack([objective.loss(batch).total for batch in objective.micro_batches(3)]).sum()
        total.backward()
        return total.item(), [p.grad for p in objective.trained.parameters() if p.grad is not None]

    (whole, gradients), (parts, others) = step(2), step(1)
    assert parts == pytest.approx(whole, rel=1e-4)
    for mine, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("queries", "share"), [("learnable", 0.0), ("conditional", 1.0)])
def test_queries_may_be_of_one_sort(recipe: Path, queries: str, share: float) -> None:
    _, objective = build_run(load_recipe(recipe, [f"model.config.queries={queries}"]))
    assert isinstance(objective, SegmenterObjective)
    (batch,) = objective.micro_batches(0)
    loss = objective.loss(batch)
    assert float(loss.metrics["conditional_share"]) == pytest.approx(share * len(batch.images))
    loss.total.backward()
    torch.optim.AdamW(objective.trained.parameters(), fused=True).step()
    assert np.isfinite(objective.loss(batch).total.item())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("segmenter.tokenizer=null", "segmenter.tokenizer: a fresh model needs it"),
        ("segmenter.text_encoder.hidden_size=32", "text_hidden_size"),
        ("pictures.held_out_names=[bush]", "did you mean 'bus'"),
        ("pictures.unseen_worlds=[{seed: 9}]", "held_out_names"),
        ("pictures.sizes=[[40, 64]]", "multiples of 16"),
        ("model.config.num_queries=7", "num_queries: 7 is odd"),
        ("model.config.queries=both", "queries"),
        ("parallel.tensor=2", "parallel.tensor: .* give 1"),
    ],
)
def test_mistakes_are_named(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_run(load_recipe(recipe, [override]))
