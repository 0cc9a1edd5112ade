"""DPO and its relatives against TRL's own trainers, and a whole run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from kilonova.core.config import parse_config
from kilonova.core.errors import ConfigError, DataError
from kilonova.data.preferences import make_pair_batch
from kilonova.models.checkpoint import load_decoder, save_decoder
from kilonova.train.language_run import language_context, starting_decoder
from kilonova.train.objectives.dpo import DPOObjective, DPOSection, dpo_losses
from kilonova.train.objectives.pairs import completion_log_probs
from kilonova.train.objectives.reference import model_digest
from kilonova.train.placed import PlacedDecoder
from kilonova.train.recipe import TrainRecipe
from kilonova.train.run import train


def objective_of(tree: dict[str, Any]) -> DPOObjective:
    context = language_context(parse_config(TrainRecipe, tree))
    return DPOObjective(context, PlacedDecoder(starting_decoder(context), context.device, context.dtype))


def move_away(model: torch.nn.Module) -> None:
    """Changes the policy by the same amounts whatever the order of its parameters."""
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            generator = torch.Generator().manual_seed(len(name))
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


def some_pairs(objective: DPOObjective):
    """A batch that has a row of several pairs and one of fewer."""
    rows = objective._data.rows
    batch = make_pair_batch(rows, [0, len(rows) - 1])
    batch.pairs[1, 1:] = -1
    assert batch.num_pairs > 3
    return batch


def trl_examples(objective: DPOObjective, batch) -> list[dict[str, list[int]]]:
    """The same pairs, one a row, as TRL's collators take them, in the same order."""
    documents = objective._data.sources["train"].documents
    examples = []
    for pair in batch.pairs[batch.pairs >= 0].tolist():
        a, b, c = documents.offsets[2 * pair : 2 * pair + 3]
        start = int((~documents.trained[a:b]).sum())
        examples.append(
            {
                "prompt_ids": documents.tokens[a : a + start].tolist(),
                "chosen_ids": documents.tokens[a + start : b].tolist(),
                "rejected_ids": documents.tokens[b + start : c].tolist(),
            }
        )
    return examples


@pytest.fixture(scope="module")
def trl_trainer(tiny_micro_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A real DPOTrainer with a reference model, whose policy has moved away from it."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    def make(**options: Any) -> Any:
        arguments = DPOConfig(
            str(tmp_path_factory.mktemp("trl")), use_cpu=True, bf16=False, report_to=[], max_length=None,
            disable_dropout=True, **options,
        )  # fmt: skip
        model, reference = (
            AutoModelForCausalLM.from_pretrained(tiny_micro_directory, dtype=torch.float32) for _ in range(2)
        )
        rows = Dataset.from_list([{"prompt": "fox", "chosen": " dog", "rejected": " cat"}])
        tokenizer = AutoTokenizer.from_pretrained(tiny_micro_directory)
        trainer = DPOTrainer(model, reference, arguments, train_dataset=rows, processing_class=tokenizer)
        move_away(trainer.model)
        return trainer

    return make


def assert_same_gradients(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    found = {name: p.grad for name, p in ours.named_parameters()}
    assert expected.keys() == found.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert largest > 1e-3
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4 * largest, msg=name)


@pytest.mark.parametrize(
    ("section", "options"),
    [
        ({"loss": "sigmoid"}, {"loss_type": "sigmoid"}),
        ({"loss": "sigmoid", "beta": 0.5}, {"loss_type": "sigmoid"}),
        ({"loss": "robust", "label_smoothing": 0.2}, {"loss_type": "robust"}),
        ({"loss": "hinge"}, {"loss_type": "hinge"}),
        ({"loss": "ipo"}, {"loss_type": "ipo"}),
        ({"loss": "sigmoid_norm"}, {"loss_type": "sigmoid_norm"}),
    ],
)
def test_losses_gradients_and_metrics_are_trl_s(section, options, trl_trainer, pair_recipe) -> None:
    objective = objective_of(pair_recipe("dpo", dpo=section))
    shared = {"beta": section.get("beta", 0.1), "label_smoothing": section.get("label_smoothing", 0.0)}
    trainer = trl_trainer(**options, **shared)
    move_away(objective.trained)
    batch = some_pairs(objective)
    trainer.model.train()
    expected = trainer.compute_loss(trainer.model, trainer.data_collator(trl_examples(objective, batch)))
    expected.backward()

    found = objective.loss(batch)
    (found.total / batch.num_pairs).backward()

    torch.testing.assert_close(found.total.detach() / batch.num_pairs, expected.detach(), rtol=1e-4, atol=1e-5)
    assert_same_gradients(objective.trained, trainer.model)
    theirs = trainer._metrics["train"]
    for name, total in found.metrics.items():
        assert float(total) / batch.num_pairs == pytest.approx(theirs[name][0], rel=1e-4, abs=1e-4), name


def log_probs_of(objective: DPOObjective, batch) -> torch.Tensor:
    with torch.no_grad():
        return completion_log_probs(objective.model, batch)


def test_conservative_dpo_is_trl_s_loss_of_one_pair(trl_trainer, pair_recipe) -> None:
    # TRL smooths labels in its `aot` loss, which is DPO's where a batch has one pair.
    objective = objective_of(pair_recipe("dpo", dpo={"label_smoothing": 0.1}))
    trainer = trl_trainer(loss_type="aot", label_smoothing=0.1)
    move_away(objective.trained)
    batch = some_pairs(objective)
    batch.pairs[:, 1:] = -1
    batch.pairs[1] = -1
    expected = trainer.compute_loss(trainer.model, trainer.data_collator(trl_examples(objective, batch)))
    torch.testing.assert_close(objective.loss(batch).total, expected, rtol=1e-4, atol=1e-5)


def plain_log_probs(count: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    log_probs = -20 * torch.rand(count, 2, generator=generator)
    lengths = torch.randint(2, 30, (count, 2), generator=generator).float()
    return log_probs.requires_grad_(), torch.zeros(count, 2), lengths


def test_simpo_is_trl_s() -> None:
    from trl.experimental.cpo import CPOTrainer

    trainer = CPOTrainer.__new__(CPOTrainer)
    trainer.loss_type, trainer.alpha, trainer.beta, trainer.simpo_gamma, trainer.label_smoothing = (
        "simpo", 0.0, 2.0, 0.7, 0.1,
    )  # fmt: skip
    trainer.accelerator = type("", (), {"device": "cpu"})
    log_probs, zeros, lengths = plain_log_probs()
    means = log_probs / lengths
    expected, _, _ = trainer.cpo_loss(means[:, 0], means[:, 1])
    section = DPOSection(loss="simpo", beta=2.0, simpo_gamma=0.7, label_smoothing=0.1)
    found = dpo_losses(section, log_probs, zeros, lengths)
    torch.testing.assert_close(found, expected)
    (first,) = torch.autograd.grad(found.sum(), log_probs, retain_graph=True)
    (second,) = torch.autograd.grad(expected.sum(), log_probs)
    torch.testing.assert_close(first, second)


def test_orpo_is_trl_s() -> None:
    from trl.experimental.orpo import ORPOTrainer

    trainer = ORPOTrainer.__new__(ORPOTrainer)
    trainer.beta = 0.3
    trainer.accelerator = type("", (), {"device": "cpu"})
    log_probs, zeros, lengths = plain_log_probs()
    means = log_probs / lengths
    ratios = trainer.odds_ratio_loss(means[:, 0], means[:, 1])[0]
    found = dpo_losses(DPOSection(loss="orpo", beta=0.3), log_probs, zeros, lengths)
    expected = -means[:, 0] - ratios
    torch.testing.assert_close(found, expected)
    (first,) = torch.autograd.grad(found.sum(), log_probs, retain_graph=True)
    (second,) = torch.autograd.grad(expected.sum(), log_probs)
    torch.testing.assert_close(first, second)
    certain = torch.zeros(1, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        dpo_losses(DPOSection(loss="orpo"), certain, zeros[:1], lengths[:1]).sum(), certain
    )
    assert gradient.isfinite().all()


def test_sft_term_and_length_coefficient_by_hand() -> None:
    log_probs, zeros, lengths = plain_log_probs()
    base = dpo_losses(DPOSection(), log_probs, zeros, lengths)
    with_sft = dpo_losses(DPOSection(sft_weight=0.5), log_probs, zeros, lengths)
    torch.testing.assert_close(with_sft - base, -0.5 * log_probs[:, 0] / lengths[:, 0])
    found = dpo_losses(DPOSection(length_coefficient=0.02), log_probs, zeros, lengths)
    difference = (log_probs[:, 0] - log_probs[:, 1]).double()
    logits = 0.1 * difference + 0.02 * lengths[:, 0].double() - 0.02 * lengths[:, 1].double()
    torch.testing.assert_close(found.double(), (1 + (-logits).exp()).log(), rtol=1e-5, atol=1e-6)


def test_packing_changes_nothing(pair_recipe) -> None:
    together = objective_of(pair_recipe("dpo"))
    tree = pair_recipe("dpo")
    longest = int(max((c - a) for a, c in zip(*offsets_of_pairs(together), strict=True)))
    tree["data"] = tree["data"] | {"sequence_length": longest}
    apart = objective_of(tree)
    move_away(together.trained)
    move_away(apart.trained)
    assert len(together._data.rows) < len(apart._data.rows)
    totals, gradients = [], []
    for objective in (together, apart):
        rows = objective._data.rows
        total = torch.zeros(())
        for row in range(len(rows)):
            loss = objective.loss(make_pair_batch(rows, [row])).total
            loss.backward()
            total += loss.detach()
        totals.append(total)
        gradients.append(torch.cat([p.grad.flatten() for p in objective.trained.parameters()]))
    torch.testing.assert_close(totals[0], totals[1], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-3)


def offsets_of_pairs(objective: DPOObjective):
    offsets = objective._data.sources["train"].documents.offsets
    return offsets[:-1:2], offsets[2::2]


def test_the_reference_is_read_again_for_the_same_model_only(
    pair_recipe, tiny_micro_directory, tmp_path, monkeypatch
) -> None:
    first = objective_of(pair_recipe("dpo"))
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*-reference-*.npy")}
    assert sorted(name.split("-reference-")[0] for name in files) == ["held-out", "train"]
    batch = make_pair_batch(first._data.rows, range(len(first._data.rows)))
    with torch.no_grad():
        torch.testing.assert_close(first._reference[batch.pairs[batch.pairs >= 0]], log_probs_of(first, batch))

    computed = []
    real = PlacedDecoder.hidden_states
    monkeypatch.setattr(PlacedDecoder, "hidden_states", lambda self, batch: computed.append(1) or real(self, batch))
    again = objective_of(pair_recipe("dpo"))
    assert not computed
    assert torch.equal(again._reference, first._reference)

    other = load_decoder(tiny_micro_directory)
    move_away(other)
    save_decoder(other, tmp_path / "other")
    for file in tiny_micro_directory.glob("*token*"):
        (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "other/chat_template.jinja").write_bytes((tiny_micro_directory / "chat_template.jinja").read_bytes())
    changed = objective_of(pair_recipe("dpo", model={"init_from": str(tmp_path / "other")}))
    assert computed
    assert not torch.allclose(changed._reference, first._reference)
    assert len(list((tmp_path / "cache").glob("*-reference-*.npy"))) == 4
    assert model_digest(other) != model_digest(first.trained)


def test_a_damaged_reference_is_named(pair_recipe, tmp_path) -> None:
    objective_of(pair_recipe("dpo"))
    (path,) = (tmp_path / "cache").glob("train-reference-*.npy")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="train-reference"):
        objective_of(pair_recipe("dpo"))


@pytest.mark.parametrize(
    "section",
    [
        {"beta": 0.0},
        {"label_smoothing": 0.5},
        {"loss": "ipo", "label_smoothing": 0.1},
        {"loss": "simpo", "length_coefficient": 0.1},
    ],
)
def test_settings_that_make_no_loss_are_refused(section) -> None:
    with pytest.raises(ConfigError, match=rf"dpo\.{next(name for name in section if name != 'loss')}"):
        DPOSection(**section)


@pytest.mark.parametrize("loss", ["sigmoid", "simpo"])
def test_a_run_learns_the_preference(loss, pair_recipe, tmp_path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(pair_recipe("dpo", dpo={"loss": loss}, optimizer={"lr": 0.001})))
    directory = train(path)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert steps[-1]["loss"] < 0.6 * steps[0]["loss"]
    results = lines[-1]["validation"]
    assert results["held-out/accuracy"] > 0.9
    assert results["held-out/accuracy_low"] <= results["held-out/accuracy"] <= results["held-out/accuracy_high"]
    assert load_decoder(directory).config.vocab_size == 512
    record = json.loads((directory / "training.json").read_text())
    assert record["sources"][0]["pairs"] == 60
    assert not list((tmp_path / "cache").glob("*-reference-*")) or loss == "sigmoid"
