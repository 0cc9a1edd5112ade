"""Runs that train an adapter and nothing else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.distributed.checkpoint import FileSystemReader

from kilonova.core.errors import CheckpointError, ConfigError
from kilonova.models.adapter import load_adapter, merge_directories
from kilonova.models.checkpoint import load_decoder
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.run import train

Make = Callable[..., Path]


@pytest.fixture
def make(tiny_micro_directory: Path, tmp_path: Path) -> Make:
    """Writes a recipe that adapts the tiny model to two answers; `changes` replace its values."""
    turns = [[("hello", "good day"), ("bye", "so long")][index % 2] for index in range(40)]
    rows = [{"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]} for a, b in turns]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pair = {role: [{"role": "assistant", "content": text}] for role, text in (("chosen", "aye"), ("rejected", "no"))}
    pair["prompt"] = [{"role": "user", "content": "hello"}]
    (tmp_path / "pairs.jsonl").write_text((json.dumps(pair) + "\n") * 20)

    def write(name: str = "run", **changes: Any) -> Path:
        tree = {
            "objective": "sft",
            "output": str(tmp_path / name),
            "model": {"init_from": str(tiny_micro_directory)},
            "adapter": {"rank": 4, "alpha": 8.0},
            "data": {
                "root": str(tmp_path),
                "cache": str(tmp_path / "cache"),
                "sequence_length": 256,
                "sources": [{"name": "chat", "path": "chat.jsonl", "format": "chat"}],
            },
            "optimizer": {"lr": 0.01, "weight_decay": 0.0},
            "schedule": {"decay_fraction": 0.0},
            "steps": 8,
            "batch_size": 2,
            "micro_batch_size": 1,
            "device": "cpu",
            "dtype": "float32",
            "compile": False,
            "threads": 1,
            "log_every": 1,
            "checkpoint_every": 4,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree | changes))
        return path

    return write


def losses(output: Path) -> list[float]:
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def prompt(directory: Path) -> torch.Tensor:
    return torch.tensor([Tokenizer.from_directory(directory).encode("hello, what is this?")])


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_run_leaves_a_peft_directory(tiny_micro_directory: Path, make: Make, tmp_path: Path, kind: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    before = load_file(tiny_micro_directory / "model.safetensors")
    directory = train(make(adapter={"kind": kind, "rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "down_proj"]}))

    found = losses(tmp_path / "run")
    assert found[-1] < 0.8 * found[0]
    names = {file.name for file in directory.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "training.json"} <= names
    assert "model.safetensors" not in names
    record = json.loads((directory / "training.json").read_text())
    assert record["adapter"]["kind"] == kind
    assert 0 < record["trained_parameters"] < 0.2 * record["parameters"]
    after = load_file(tiny_micro_directory / "model.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())

    base = AutoModelForCausalLM.from_pretrained(tiny_micro_directory, dtype=torch.float32)
    peft = PeftModel.from_pretrained(base, str(directory))
    ours = load_decoder(tiny_micro_directory)
    load_adapter(ours, directory)
    with torch.no_grad():
        logits = ours(prompt(directory))
        torch.testing.assert_close(logits, peft(prompt(directory)).logits, rtol=1e-4, atol=1e-4)
        assert (logits - load_decoder(tiny_micro_directory)(prompt(directory))).abs().max() > 0.01


def test_merge_writes_the_model_that_merging_the_directories_gives(
    tiny_micro_directory: Path, make: Make, tmp_path: Path
) -> None:
    adapter = train(make("adapter"))
    merged = train(make("merged", adapter={"rank": 4, "alpha": 8.0, "merge": True}))
    merge_directories(tiny_micro_directory, adapter, tmp_path / "by-hand")
    expected = load_file(tmp_path / "by-hand" / "model.safetensors")
    for name, tensor in load_file(merged / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6)
    assert not (merged / "adapter_config.json").exists()
    assert Tokenizer.from_directory(tmp_path / "by-hand").vocab_size == 512


def test_checkpoints_hold_the_adapter_alone_and_resume_exactly(make: Make, tmp_path: Path) -> None:
    whole = train(make("whole"))
    train(make("parts", steps=4))
    resumed = train(make("parts"))
    expected = load_file(whole / "adapter_model.safetensors")
    for name, tensor in load_file(resumed / "adapter_model.safetensors").items():
        assert torch.equal(tensor, expected[name]), name

    newest = max((tmp_path / "parts" / "checkpoints").glob("step-*"))
    names = FileSystemReader(newest).read_metadata().state_dict_metadata
    weights = [name for name in names if name.startswith("model.")]
    assert weights
    assert all(".lora_" in name for name in names if name.startswith(("model.", "optimizer.")))

    with pytest.raises(CheckpointError):
        train(make("parts", adapter={"rank": 5, "alpha": 8.0}, steps=12))


@pytest.mark.parametrize("objective", ["pretrain", "dpo", "distill"])
def test_other_objectives(tiny_micro_directory: Path, make: Make, tmp_path: Path, objective: str) -> None:
    changes: dict[str, Any] = {"objective": objective, "steps": 3}
    if objective == "distill":
        changes["distill"] = {"teacher": str(tiny_micro_directory), "hard_weight": 0.5, "whole_documents": True}
    if objective == "dpo":
        data = yaml.safe_load(make().read_text())["data"]
        source = {"name": "pairs", "path": "pairs.jsonl", "format": "preference"}
        changes["data"] = {**data, "sequence_length": 320, "sources": [source]}
    directory = train(make(**changes))
    tensors = load_file(directory / "adapter_model.safetensors")
    assert all(tensor.abs().max() > 0 for name, tensor in tensors.items() if "lora_B" in name)


def test_muon_moves_an_adapter_too(make: Make, tmp_path: Path) -> None:
    train(make(optimizer={"name": "muon", "lr": 0.01, "muon_lr": 0.01}))
    found = losses(tmp_path / "run")
    assert found[-1] < 0.9 * found[0]


def test_a_fresh_model_has_nothing_to_adapt(tiny_tokenizer_directory: Path, make: Make) -> None:
    model = {"tokenizer": str(tiny_tokenizer_directory), "config": {"model_type": "qwen3"}}
    with pytest.raises(ConfigError, match=r"adapter: needs model.init_from"):
        train(make(model=model))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "parallel"), [("dora", {}), ("lora", {"tensor": 2})], ids=["fsdp", "tensor"])
def test_two_processes_train_the_same_adapter(make: Make, tmp_path: Path, kind: str, parallel: dict[str, int]) -> None:
    adapter = {"kind": kind, "rank": 4, "alpha": 8.0}
    alone = train(make("alone", adapter=adapter, steps=3))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "import sys; from kilonova.train.run import train; train(sys.argv[1])"
    path = make("together", adapter=adapter, steps=3, parallel=parallel)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank, "GLOO_SOCKET_IFNAME": "lo"},
            stderr=(tmp_path / f"rank{rank}.txt").open("w"),
        )
        for rank in ("0", "1")
    ]
    codes = [process.wait(timeout=240) for process in processes]
    assert codes == [0, 0], (tmp_path / "rank0.txt").read_text()[-3000:]
    torch.testing.assert_close(losses(tmp_path / "together"), losses(tmp_path / "alone"), rtol=1e-4, atol=1e-4)
    expected = load_file(alone / "adapter_model.safetensors")
    found = load_file(tmp_path / "together" / "model" / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert (tensor - expected[name]).norm() < 0.02 * expected[name].norm(), name
