"""The losses of whole rollouts, and their gradients, against plain float64 arithmetic and against TRL."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kilonova.core.config import parse_config
from kilonova.models.checkpoint import load_decoder, save_decoder
from kilonova.models.decoder.model import Decoder
from kilonova.models.reward import RewardModel, save_reward_model
from kilonova.train.build import build_objective
from kilonova.train.language_run import language_context
from kilonova.train.objectives.ppo import PPOObjective
from kilonova.train.objectives.reinforcement import ReinforcementObjective
from kilonova.train.placed import PlacedDecoder
from kilonova.train.recipe import TrainRecipe

TEMPERATURE = 0.8
MAX_NEW_TOKENS = 6
PENALTY = 0.25


def make_objective(root: Path, model: Path, name: str, section: dict[str, Any]) -> ReinforcementObjective:
    """An objective of 8 completions a rollout, all in one step of two micro-batches."""
    prompts = ("fox", "quick brown", "the lazy dog", "seven wizards vex a judge")
    verifier = {"name": "regex", "pattern": "[^o]*"}
    rows = [{"prompt": [{"role": "user", "content": text}], "verifier": verifier} for text in prompts]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rollout = {"max_new_tokens": MAX_NEW_TOKENS, "temperature": TEMPERATURE, "missing_eos_penalty": PENALTY}
    rollout["prompts"] = 8 // section.get("group_size", 1)
    source = {"name": "rows", "path": "rows.jsonl", "format": "verifiable"}
    tree = {
        "objective": name,
        "output": str(root / "run"),
        "model": {"init_from": str(model)},
        "data": {"root": str(root), "sequence_length": 64, "sources": [source]},
        "optimizer": {"lr": 0.001},
        name: section | {"rollout": rollout},
        "steps": 1,
        "batch_size": 8,
        "micro_batch_size": 4,
        "device": "cpu",
        "dtype": "float32",
        "compile": False,
    }
    context = language_context(parse_config(TrainRecipe, tree))
    decoder = load_decoder(model, dtype=torch.float32)
    objective = build_objective(context, PlacedDecoder(decoder, context.device, context.dtype))
    assert isinstance(objective, ReinforcementObjective)
    return objective


def disturb(module: torch.nn.Module, scale: float, seed: int = 5) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * parameter.std(correction=0) * torch.randn(parameter.shape, generator=generator)


def plain_log_probs(decoder: Decoder, inputs: Tensor, labels: Tensor) -> list[Tensor]:
    """The completions' log-probabilities, a tensor a row."""
    rows = []
    for ids, targets in zip(inputs, labels, strict=True):
        at = (targets != -100).nonzero()[:, 0]
        logits = decoder(ids[None])[0, at] / TEMPERATURE
        rows.append(logits.log_softmax(-1).gather(1, targets[at][:, None])[:, 0])
    return rows


def summed_loss(objective: ReinforcementObjective) -> tuple[Tensor, dict[str, float]]:
    """The loss of step 0 as the trainer forms it, and the metrics it would log."""
    batches = objective.micro_batches(0)
    items = sum(map(objective.num_items, batches))
    losses = [objective.loss(batch) for batch in batches]
    metrics = {name: float(sum(loss.metrics[name] for loss in losses)) / items for name in losses[0].metrics}
    return sum(loss.total for loss in losses) / items, metrics


def assert_same_gradients(left: torch.nn.Module, right: torch.nn.Module) -> None:
    expected = {name: parameter.grad for name, parameter in right.named_parameters()}
    for name, parameter in left.named_parameters():
        if expected[name] is None:
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        scale = float(expected[name].abs().max()) + 1e-8
        torch.testing.assert_close(parameter.grad.double() / scale, expected[name] / scale, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "section",
    [
        {"gae_lambda": 0.9, "gamma": 0.98},
        {"aggregation": "sequence_mean", "kl_estimator": "k3", "dual_clip": 1.05, "value_clip_range": None},
        {"aggregation": "constant", "kl_estimator": "k2", "whiten_advantages": False},
    ],
    ids=["token_mean", "sequence_mean", "constant"],
)
def test_ppo_equals_plain_float64(tiny_micro_directory: Path, tmp_path: Path, section: dict[str, Any]) -> None:
    objective = make_objective(
        tmp_path, tiny_micro_directory, "ppo", {"clip_range": 0.05, "kl_coefficient": 0.3, **section}
    )
    assert isinstance(objective, PPOObjective)
    policy, value = objective.trained["policy"], objective.trained["value"]
    reference = copy.deepcopy(policy).double()
    disturb(policy, 0.02, seed=1)
    old_policy, old_value = copy.deepcopy(policy).double(), copy.deepcopy(value).double()
    objective.micro_batches(0)
    disturb(policy, 0.02, seed=2)
    disturb(value, 0.1, seed=3)
    new_policy, new_value = copy.deepcopy(policy).double(), copy.deepcopy(value).double()
    loss, metrics = summed_loss(objective)
    loss.backward()

    settings = objective.section
    order = torch.cat([batch.batch.input_ids for batch in objective.micro_batches(0)])
    labels = torch.cat([batch.batch.labels for batch in objective.micro_batches(0)])
    with torch.no_grad():
        old = plain_log_probs(old_policy, order, labels)
        base = plain_log_probs(reference, order, labels)
        old_values = [old_value(ids[None])[0, targets != -100] for ids, targets in zip(order, labels, strict=True)]
    tokenizer = objective._context.tokenizer
    advantages, returns, rewards = [], [], []
    for row, targets in enumerate(labels):
        answer = targets[targets != -100].tolist()
        complete = answer[-1] in tokenizer.stop_token_ids
        rewards.append(float("o" not in tokenizer.decode(answer[:-1] if complete else answer)))
        difference = old[row] - base[row]
        divergence = {"k1": difference, "k2": difference**2 / 2, "k3": torch.exp(-difference) - 1 + difference}
        token_rewards = -settings.kl_coefficient * divergence[settings.kl_estimator]
        token_rewards[-1] += rewards[-1] - PENALTY * (not complete)
        values = [*old_values[row].tolist(), 0.0]
        advantage, row_advantages = 0.0, []
        for t in reversed(range(len(answer))):
            delta = float(token_rewards[t]) + settings.gamma * values[t + 1] - values[t]
            advantage = delta + settings.gamma * settings.gae_lambda * advantage
            row_advantages.insert(0, advantage)
        advantages.append(torch.tensor(row_advantages, dtype=torch.float64))
        returns.append(advantages[-1] + torch.tensor(values[:-1], dtype=torch.float64))
    if settings.whiten_advantages:
        every = torch.cat(advantages)
        advantages = [(one - every.mean()) / every.std() for one in advantages]
    new = plain_log_probs(new_policy, order, labels)
    row_losses = []
    for row, targets in enumerate(labels):
        ratio = torch.exp(new[row] - old[row])
        advantage = advantages[row]
        clip = settings.clip_range
        objective_value = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
        if settings.dual_clip:
            bounded = torch.maximum(objective_value, settings.dual_clip * advantage)
            objective_value = torch.where(advantage < 0, bounded, objective_value)
        predicted = new_value(order[row][None])[0, targets != -100]
        error = (predicted - returns[row]) ** 2
        if settings.value_clip_range is not None:
            near = old_values[row] + (predicted - old_values[row]).clamp(
                -settings.value_clip_range, settings.value_clip_range
            )
            error = torch.maximum(error, (near - returns[row]) ** 2)
        row_losses.append(-objective_value + settings.value_coefficient * error / 2)
    expected = {
        "token_mean": torch.cat(row_losses).mean(),
        "sequence_mean": torch.stack([one.mean() for one in row_losses]).mean(),
        "constant": torch.stack([one.sum() / MAX_NEW_TOKENS for one in row_losses]).mean(),
    }[settings.aggregation]
    expected.backward()

    assert loss.item() == pytest.approx(expected.item(), abs=2e-5)
    assert 0 < sum(rewards) < 8
    assert metrics["reward"] == pytest.approx(sum(rewards) / 8)
    assert metrics["kl"] == pytest.approx(
        sum(float((o - b).sum()) for o, b in zip(old, base, strict=True)) / 8, abs=1e-3
    )
    assert 0.05 < metrics["clip_fraction"] < 0.95
    assert_same_gradients(policy, new_policy)
    assert_same_gradients(value, new_value)


def test_the_reward_models_score_is_the_reward(tiny_micro_directory: Path, tmp_path: Path) -> None:
    """The score at the completion's end, read by transformers from the same checkpoint."""
    transformers = pytest.importorskip("transformers")
    scorer = RewardModel.from_decoder(load_decoder(tiny_micro_directory), torch.Generator().manual_seed(3))
    save_reward_model(scorer, tmp_path / "reward")
    for file in tiny_micro_directory.glob("*.j*"):
        if not (tmp_path / "reward" / file.name).exists():
            shutil.copyfile(file, tmp_path / "reward" / file.name)
    section = {"reward_model": str(tmp_path / "reward"), "value_init_from": "reward_model", "kl_coefficient": 0.0}
    objective = make_objective(tmp_path, tiny_micro_directory, "ppo", section)
    assert isinstance(objective, PPOObjective)
    objective.micro_batches(0)
    experience = objective._experience
    assert experience is not None
    reference = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "reward", dtype=torch.float32
    )
    scores = []
    for ids, targets in zip(experience.batch.input_ids, experience.batch.labels, strict=True):
        end = int((targets != -100).nonzero().max())
        whole = torch.cat((ids[: end + 1], targets[end : end + 1]))[None]
        with torch.no_grad():
            scores.append(reference.score(reference.model(whole).last_hidden_state)[0, -1, 0].item())
    assert experience.metrics["reward"] == pytest.approx(sum(scores) / 8, abs=1e-5)
    value = objective.trained["value"]
    assert torch.equal(value.score.weight, scorer.score.weight)
    assert value.score.weight.requires_grad
    assert not any(parameter.requires_grad for parameter in objective.scorer.model.parameters())


@pytest.mark.parametrize(
    ("loss_type", "section"),
    [
        ("grpo", {"aggregation": "sequence_mean"}),
        ("bnpo", {"aggregation": "token_mean", "clip_high": 0.1}),
        ("dr_grpo", {"aggregation": "constant", "baseline": "dr_grpo", "dual_clip": 1.05}),
    ],
)
def test_grpo_equals_trl(tiny_micro_directory: Path, tmp_path: Path, loss_type: str, section: dict[str, Any]) -> None:
    trl = pytest.importorskip("trl")
    transformers = pytest.importorskip("transformers")
    datasets = pytest.importorskip("datasets")
    section = {"group_size": 4, "kl_coefficient": 0.2, "clip_low": 0.05, "clip_high": 0.05, **section}
    objective = make_objective(tmp_path, tiny_micro_directory, "grpo", section)
    policy = objective.trained
    disturb(policy, 0.02, seed=1)
    objective.micro_batches(0)
    disturb(policy, 0.02, seed=2)
    loss, metrics = summed_loss(objective)
    loss.backward()

    save_decoder(policy, tmp_path / "policy")
    for file in tiny_micro_directory.glob("tokenizer*"):
        shutil.copyfile(file, tmp_path / "policy" / file.name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "policy")
    tokenizer.pad_token = tokenizer.eos_token
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32)
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path / "trl"),
        loss_type=loss_type,
        beta=section["kl_coefficient"],
        epsilon=section["clip_low"],
        epsilon_high=section["clip_high"],
        delta=section.get("dual_clip"),
        temperature=TEMPERATURE,
        max_completion_length=MAX_NEW_TOKENS,
        use_bias_correction_kl=False,
        num_generations=4,
        per_device_train_batch_size=8,
        use_cpu=True,
        bf16=False,
        report_to=[],
    )
    trainer = trl.GRPOTrainer(
        model,
        lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=datasets.Dataset.from_list([{"prompt": "x"}] * 8),
        processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    experience = objective._experience
    assert experience is not None
    inputs = trl_inputs(experience.batch.input_ids, experience.batch.labels, experience.fields)
    expected = trainer._compute_loss(trainer.model.eval(), inputs)
    expected.backward()

    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
    assert metrics["groups_alike"] < 1
    assert 0.05 < metrics["clip_fraction"] < 0.95
    theirs = dict(trainer.model.named_parameters())
    for name, parameter in policy.named_parameters():
        scale = float(theirs[name].grad.abs().max()) + 1e-8
        torch.testing.assert_close(parameter.grad / scale, theirs[name].grad / scale, atol=1e-3, rtol=0)


def trl_inputs(input_ids: Tensor, labels: Tensor, fields: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our rows as TRL has them: prompts padded on the left, completions on the right."""
    rows: dict[str, list[Tensor]] = {}
    longest = max(int((row != -100).nonzero().min()) for row in labels) + 1
    for row, (ids, targets) in enumerate(zip(input_ids, labels, strict=True)):
        at = (targets != -100).nonzero()[:, 0]
        first, count = int(at[0]) + 1, len(at)
        left, right = longest - first, MAX_NEW_TOKENS - count
        pad = torch.nn.functional.pad
        for name, value in {
            "prompt_ids": pad(ids[:first], (left, 0)),
            "prompt_mask": pad(torch.ones(first, dtype=torch.long), (left, 0)),
            "completion_ids": pad(targets[at], (0, right)),
            "completion_mask": pad(torch.ones(count, dtype=torch.long), (0, right)),
            "advantages": fields["advantages"][row, at[0]],
            "old_per_token_logps": pad(fields["old_log_probs"][row, at], (0, right)),
            "ref_per_token_logps": pad(fields["reference_log_probs"][row, at], (0, right)),
        }.items():
            rows.setdefault(name, []).append(value)
    stacked = {name: torch.stack(values) for name, values in rows.items()}
    return stacked | {"num_items_in_batch": stacked["completion_mask"].sum()}
