"""Runs of PPO and GRPO: they learn, they resume exactly, and their rollouts follow the weights."""

import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from kilonova.core.errors import ConfigError, DataError
from kilonova.models.checkpoint import load_decoder
from kilonova.models.reward import RewardModel, save_reward_model
from kilonova.train.run import train

SHAPE = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
SECTIONS: dict[str, dict[str, Any]] = {
    "grpo": {"group_size": 8, "kl_coefficient": 0.001, "rollout": {"prompts": 4, "max_new_tokens": 8}},
    "ppo": {
        "epochs": 2,
        "kl_coefficient": 0.001,
        "kl_target": 1.0,
        "rollout": {"prompts": 32, "max_new_tokens": 8, "missing_eos_penalty": 0.1},
    },
}


def recipe(root: Path, tokenizer: Path, name: str, objective: str, **changes: Any) -> Path:
    """A recipe whose reward is for answers of one word."""
    words = ("fox", "dog", "judge", "wizard", "brown", "lazy", "quick", "light")
    verifier = {"name": "word_count", "most": 1}
    rows = [{"prompt": [{"role": "user", "content": word}], "verifier": verifier} for word in words]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = {
        "objective": objective,
        "output": str(root / name),
        "model": {"tokenizer": str(tokenizer), "config": SHAPE},
        "data": {
            "root": str(root),
            "sequence_length": 24,
            "sources": [{"name": "rows", "path": "rows.jsonl", "format": "verifiable"}],
            "validation": [{"name": "check", "path": "rows.jsonl", "format": "verifiable"}],
        },
        "optimizer": {"lr": 0.003, "weight_decay": 0.0},
        "schedule": {"decay_fraction": 0.0},
        objective: SECTIONS[objective],
        "steps": 12,
        "batch_size": 16,
        "micro_batch_size": 8,
        "device": "cpu",
        "dtype": "float32",
        "compile": False,
        "threads": 1,
        "log_every": 1,
        "evaluate_every": 100,
        "checkpoint_every": 3,
    }
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree | changes))
    return path


def log(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def by_step(output: Path) -> dict[int, list[dict[str, float]]]:
    """What every step logged of its loss; a step that was replayed has several records."""
    timed = {"tokens_per_second", "mfu"}
    found: dict[int, list[dict[str, float]]] = {}
    for record in log(output):
        if "loss" in record:
            kept = {name: value for name, value in record.items() if name not in timed}
            found.setdefault(record["step"], []).append(kept)
    return found


def test_grpo_learns_from_verifiers(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    overrides = ["steps=48", "optimizer.lr=0.015", "checkpoint_every=100"]
    directory = train(recipe(tmp_path, tiny_tokenizer_directory, "run", "grpo"), overrides)
    rewards = [record["reward"] for record in log(tmp_path / "run") if "reward" in record]
    assert statistics.fmean(rewards[:8]) < 0.4
    assert statistics.fmean(rewards[-8:]) > 0.8
    (validation,) = [record["validation"] for record in log(tmp_path / "run") if "validation" in record]
    assert validation["check"] > 0.8
    assert load_decoder(directory).num_parameters() > 0
    record = json.loads((directory / "training.json").read_text())
    assert record["sources"][0]["documents"] == 8
    assert record["flops"] > 0


def assert_equal_runs(left: Path, right: Path) -> None:
    """Every record of a step, replayed ones too, and the weights at the end are the same bits."""
    expected, found = by_step(left), by_step(right)
    assert found.keys() == expected.keys()
    for number, records in found.items():
        assert all(record == expected[number][0] for record in records), number
    first, second = (load_file(output / "model/model.safetensors") for output in (left, right))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("objective", ["grpo", "ppo"])
def test_going_on_within_a_rollout_is_bit_exact(tiny_tokenizer_directory, tmp_path, objective) -> None:
    train(recipe(tmp_path, tiny_tokenizer_directory, "whole", objective), ["steps=8", "checkpoint_every=100"])
    parts = recipe(tmp_path, tiny_tokenizer_directory, "parts", objective, checkpoint_every=100)
    for steps in (1, 3, 8):
        train(parts, [f"steps={steps}"])
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_kill_and_resume_is_bit_exact(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    train(recipe(tmp_path, tiny_tokenizer_directory, "whole", "ppo"))
    killed = recipe(tmp_path, tiny_tokenizer_directory, "killed", "ppo")
    code = "import sys; from kilonova.train.run import train; train(sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-c", code, str(killed)], stderr=subprocess.DEVNULL)
    step = random.randrange(4, 9)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (tmp_path / "killed/log.jsonl").exists() and max(by_step(tmp_path / "killed"), default=0) >= step:
            break
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    train(killed)
    assert_equal_runs(tmp_path / "whole", tmp_path / "killed")


def test_ppo_learns_from_a_reward_model(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    base = train(recipe(tmp_path, tiny_tokenizer_directory, "base", "grpo"), ["steps=2"])
    reward_model = RewardModel.from_decoder(load_decoder(base), torch.Generator().manual_seed(1))
    with torch.no_grad():
        reward_model.score.weight *= 20
    save_reward_model(reward_model, tmp_path / "reward")
    for file in tiny_tokenizer_directory.iterdir():
        shutil.copyfile(file, tmp_path / "reward" / file.name)
    section = SECTIONS["ppo"] | {"reward_model": str(tmp_path / "reward"), "value_init_from": "reward_model"}
    section["value_clip_range"] = None
    path = recipe(tmp_path, tiny_tokenizer_directory, "run", "ppo", model={"init_from": str(base)}, ppo=section)
    train(path, ["steps=64", "optimizer.lr=0.02", "checkpoint_every=100"])
    records = [record for record in log(tmp_path / "run") if "reward" in record]
    assert records[-1]["reward"] > records[0]["reward"] + records[0]["reward_std"]

    (tmp_path / "reward/chat_template.jinja").write_text("other")
    with pytest.raises(ConfigError, match="another tokenizer"):
        train(path, ["output=" + str(tmp_path / "other")])


@pytest.mark.parametrize("objective", ["grpo", "ppo"])
def test_the_first_loss_of_a_rollout(tiny_tokenizer_directory: Path, tmp_path: Path, objective: str) -> None:
    """Nothing is clipped and the policy has not moved in the step after a rollout, and has in the step after that."""
    train(recipe(tmp_path, tiny_tokenizer_directory, "run", objective))
    records = [record for record in log(tmp_path / "run") if "reward" in record]
    steps = 4 if objective == "ppo" else 2
    for number, record in enumerate(records):
        assert record["generator_error"] < 1e-4
        assert (record["clip_fraction"] == 0) if number % steps == 0 else record["update_kl"] > 1e-8
        assert abs(record["update_kl"]) < 1e-6 or number % steps
    rollouts = [tuple(records[at][name] for name in ("reward", "entropy")) for at in range(0, len(records), steps)]
    assert len(set(rollouts)) == len(rollouts)
    assert records[0]["kl"] == 0
    assert records[-1]["kl"] != 0


def test_an_adapter_can_be_trained(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    base = train(recipe(tmp_path, tiny_tokenizer_directory, "base", "grpo"), ["steps=2"])
    adapter = {"rank": 8, "merge": True}
    path = recipe(tmp_path, tiny_tokenizer_directory, "run", "grpo", model={"init_from": str(base)}, adapter=adapter)
    train(path, ["steps=4", "optimizer.lr=0.01"])
    records = [record for record in log(tmp_path / "run") if "reward" in record]
    assert records[0]["generator_error"] < 1e-4
    assert records[-1]["generator_error"] < 1e-4
    assert records[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert abs(records[-1]["kl"]) > 1e-4


@pytest.mark.parametrize(
    ("objective", "overrides", "error", "message"),
    [
        ("grpo", ["grpo.group_size=1"], ConfigError, "group_size"),
        ("grpo", ["grpo.rollout.prompts=3"], ConfigError, "batch_size"),
        ("grpo", ["grpo.baseline=mean"], ConfigError, "baseline"),
        ("grpo", ["grpo.rolout.prompts=3"], ConfigError, "did you mean 'rollout'"),
        ("grpo", ["objective=ppo"], ConfigError, "grpo"),
        ("ppo", ["ppo.rollout.max_new_tokens=24"], ConfigError, "sequence_length"),
        ("ppo", ["data.sequence_length=129"], ConfigError, "sequence_length"),
        ("ppo", ["ppo.rollout.temperature=0"], ConfigError, "temperature"),
        ("ppo", ["ppo.value_init_from=reward_model"], ConfigError, "ppo.reward_model"),
        ("ppo", ["ppo.dual_clip=0.5"], ConfigError, "dual_clip"),
        ("ppo", ["ppo.kl_target=-1"], ConfigError, "kl_target"),
        ("ppo", ["data.sources.0.format=text"], DataError, "has no prompts"),
    ],
)
def test_bad_recipes_are_refused(tiny_tokenizer_directory, tmp_path, objective, overrides, error, message) -> None:
    with pytest.raises(error, match=message):
        train(recipe(tmp_path, tiny_tokenizer_directory, "bad", objective), overrides)


def test_the_sizes_of_a_rollout_cannot_change_within_a_run(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_tokenizer_directory, "run", "grpo")
    train(path, ["steps=3"])
    with pytest.raises(ConfigError, match="cannot change"):
        train(path, ["steps=4", "grpo.rollout.prompts=8"])
