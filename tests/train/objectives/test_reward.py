"""The reward objective against TRL's trainer, and a whole run."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import yaml

from kilonova.core.config import parse_config
from kilonova.core.errors import ConfigError
from kilonova.data.preferences import make_pair_batch
from kilonova.models.reward import load_reward_model, save_reward_model
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.language_run import language_context, starting_decoder
from kilonova.train.objectives.reward import RewardObjective, RewardSection, reward_losses
from kilonova.train.placed import PlacedDecoder
from kilonova.train.recipe import TrainRecipe
from kilonova.train.run import train


def objective_of(tree: dict[str, Any]) -> RewardObjective:
    context = language_context(parse_config(TrainRecipe, tree))
    return RewardObjective(context, PlacedDecoder(starting_decoder(context), context.device, context.dtype))


def trl_examples(objective: RewardObjective, batch) -> list[dict[str, Any]]:
    pairs = objective._data.sources["train"]
    examples = []
    for pair in batch.pairs[batch.pairs >= 0].tolist():
        a, b, c = pairs.documents.offsets[2 * pair : 2 * pair + 3]
        tokens = pairs.documents.tokens
        examples.append(
            {
                "chosen_ids": tokens[a:b].tolist(),
                "rejected_ids": tokens[b:c].tolist(),
                "margin": float(pairs.margins[pair]),
            }
        )
    return examples


@pytest.mark.parametrize("centring", [None, 0.05])
def test_loss_gradients_and_metrics_are_trl_s(centring, pair_recipe, tiny_micro_directory, tmp_path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    tree = pair_recipe("reward", reward={"center_rewards_coefficient": centring or 0.0})
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"margin": 0.25 * (number % 3)}) + "\n" for number, row in enumerate(rows)]
    (tmp_path / "train.jsonl").write_text("".join(lines))
    objective = objective_of(tree)
    save_reward_model(objective._reward_model, tmp_path / "start")
    arguments = RewardConfig(
        str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to=[], disable_dropout=True, max_length=None,
        center_rewards_coefficient=centring,
    )  # fmt: skip
    trainer = RewardTrainer(
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "start", dtype=torch.float32),
        arguments,
        train_dataset=Dataset.from_list([{"chosen": "fox", "rejected": "dog"}]),
        processing_class=AutoTokenizer.from_pretrained(tiny_micro_directory),
    )
    trainer.model.config.pad_token_id = trainer.data_collator.pad_token_id
    rows_of = objective._data.rows
    batch = make_pair_batch(rows_of, [0, len(rows_of) - 1])
    batch.pairs[1, 1:] = -1
    trainer.model.train()
    expected = trainer.compute_loss(trainer.model, trainer.data_collator(trl_examples(objective, batch)))
    expected.backward()

    found = objective.loss(batch)
    (found.total / batch.num_pairs).backward()

    assert batch.num_pairs > 3
    torch.testing.assert_close(found.total.detach() / batch.num_pairs, expected.detach(), rtol=1e-4, atol=1e-5)
    gradients = {name: p.grad for name, p in trainer.model.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    assert largest > 1e-3
    for name, parameter in objective.trained.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients.pop(name), rtol=1e-4, atol=1e-4 * largest, msg=name)
    assert not gradients
    for name, total in found.metrics.items():
        assert float(total) / batch.num_pairs == pytest.approx(trainer._metrics["train"][name][0], abs=1e-4), name


def test_the_length_coefficient_takes_over_what_length_explains() -> None:
    rewards = torch.tensor([[1.0, 0.5], [0.2, 0.9]], dtype=torch.float64)
    lengths = torch.tensor([[10.0, 4.0], [3.0, 8.0]], dtype=torch.float64)
    found = reward_losses(RewardSection(length_coefficient=0.1), rewards, torch.zeros(2), lengths)
    logits = torch.tensor([0.5 + 0.6, -0.7 - 0.5], dtype=torch.float64)
    torch.testing.assert_close(found, (1 + (-logits).exp()).log())


def test_packing_changes_nothing(pair_recipe) -> None:
    together = objective_of(pair_recipe("reward"))
    offsets = together._data.sources["train"].documents.offsets
    tree = pair_recipe("reward")
    tree["data"] = tree["data"] | {"sequence_length": int((offsets[2::2] - offsets[:-1:2]).max())}
    apart = objective_of(tree)
    assert len(together._data.rows) < len(apart._data.rows)
    totals, gradients = [], []
    for objective in (together, apart):
        rows = objective._data.rows
        losses = [objective.loss(make_pair_batch(rows, [row])).total for row in range(len(rows))]
        torch.stack(losses).sum().backward()
        totals.append(sum(float(loss) for loss in losses))
        gradients.append(torch.cat([p.grad.flatten() for p in objective.trained.parameters()]))
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_learns_the_preference(optimizer, pair_recipe, tmp_path) -> None:
    settings = {"name": optimizer, "lr": 0.002, "muon_lr": 0.002, "weight_decay": 0.0}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(pair_recipe("reward", optimizer=settings)))
    whole = train(path)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line for line in lines if "loss" in line][-1]["accuracy"] > 0.9
    results = lines[-1]["validation"]
    assert results["held-out/accuracy"] > 0.9
    assert results["held-out/accuracy_low"] <= results["held-out/accuracy"] <= results["held-out/accuracy_high"]

    model, tokenizer = load_reward_model(whole), Tokenizer.from_directory(whole)
    scores = []
    for answer in ("fox!", "dog?"):
        messages = [{"role": "user", "content": "say fox"}, {"role": "assistant", "content": answer}]
        tokens = tokenizer.encode_template_messages(messages, add_generation_prompt=False)
        end = max(at for at, token in enumerate(tokens) if token in tokenizer.stop_token_ids)
        with torch.no_grad():
            scores.append(float(model(torch.tensor([tokens[: end + 1]]))[0, -1]))
    assert scores[0] > scores[1]


def test_what_a_reward_model_cannot_have_is_refused(pair_recipe) -> None:
    with pytest.raises(ConfigError, match="adapter: not for a reward model"):
        objective_of(pair_recipe("reward", adapter={"rank": 2}))
    with pytest.raises(ConfigError, match="dpo: belongs to objective dpo"):
        objective_of(pair_recipe("reward", dpo={}))
    with pytest.raises(ConfigError, match="center_rewards_coefficient"):
        RewardSection(center_rewards_coefficient=-1.0)
    tree = pair_recipe("reward")
    tree["data"] = tree["data"] | {"temperature": 2.0}
    with pytest.raises(ConfigError, match=r"data\.temperature"):
        objective_of(tree)
    tree["data"] = tree["data"] | {"temperature": None, "sources": tree["data"]["sources"] * 2}
    with pytest.raises(ConfigError, match="same name"):
        objective_of(tree)
