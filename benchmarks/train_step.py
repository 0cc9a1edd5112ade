"""A training step beside that of `transformers`: same shape, rows, optimiser and number format, in one process.

Both compute AdamW steps on packed rows of text, compiled, taking turns; medians of the rounds. The text is the Python
standard library's own source, which every machine has. `--shape 1b` and `--shape 8b` are for a GPU.

    python benchmarks/train_step.py [--shape micro|1b|8b] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM

from kilonova.core.config import parse_config
from kilonova.models.registry import Registry
from kilonova.train.batches import StepBatches
from kilonova.train.build import build_objective
from kilonova.train.language_run import language_context, starting_decoder
from kilonova.train.meter import matmul_flops_per_second
from kilonova.train.placed import PlacedDecoder
from kilonova.train.recipe import TrainRecipe
from kilonova.train.trainer import Trainer

MICRO = {
    "model_type": "qwen3",
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rope_theta": 500_000.0,
}
# Llama 3.2 1B, and the layers of Llama 3 8B, as many as leave room for float32 weights and AdamW's state on one card.
SHAPES: dict[str, dict[str, Any]] = {
    "micro": {"model": MICRO, "sequence_length": 512, "micro_batch_size": 8, "steps": 6},
    "1b": {
        "model": LLAMA
        | {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "head_dim": 64,
            "tie_word_embeddings": True,
        },
        "sequence_length": 4096,
        "micro_batch_size": 4,
        "steps": 10,
    },
    "8b": {
        "model": LLAMA
        | {
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 8,
            "head_dim": 128,
            "tie_word_embeddings": False,
        },
        "sequence_length": 4096,
        "micro_batch_size": 2,
        "steps": 10,
    },
}
# Dense bfloat16 rates from the vendor's data sheets, the usual 100 % of MFU.
NOMINAL_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


def write_text(path: Path) -> None:
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(root.glob("*.py"))[:120]
    path.write_text("\n\n".join(file.read_text(encoding="utf-8", errors="ignore") for file in files), encoding="utf-8")


def recipe(shape: dict[str, Any], folder: Path, compile: bool) -> TrainRecipe:
    write_text(folder / "text.txt")
    (micro,) = [entry for entry in Registry().entries() if entry.name == "micro"]
    return parse_config(
        TrainRecipe,
        {
            "objective": "pretrain",
            "output": str(folder / "run"),
            "model": {"config": shape["model"], "tokenizer": str(micro.directory)},
            "data": {
                "root": str(folder),
                "cache": str(folder / "cache"),
                "sequence_length": shape["sequence_length"],
                "sources": [{"name": "text", "path": "text.txt"}],
            },
            "optimizer": {"name": "adamw", "lr": 1e-4},
            "steps": 1_000_000,
            "batch_size": shape["micro_batch_size"],
            "micro_batch_size": shape["micro_batch_size"],
            "compile": compile,
        },
    )


class Reference:
    """The plain training step of a `transformers` model of the same shape."""

    def __init__(self, model: dict[str, Any], batches: StepBatches, trainer: Trainer, compile: bool) -> None:
        config = dict(model)
        self.device, self.dtype = trainer.device, trainer.dtype
        self.model: Any = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(config.pop("model_type"), **config, use_cache=False), dtype=torch.float32
        ).to(self.device)
        self.forward = torch.compile(self.model, dynamic=False) if compile else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
        self.batches = batches
        self.step = 0

    def train_step(self) -> None:
        (batch,) = self.batches(self.step)
        batch = batch.to(self.device)
        autocast = nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)
        with autocast:
            loss = self.forward(input_ids=batch.input_ids, labels=batch.input_ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1


def seconds_per_step(step: Callable[[], object], steps: int, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


def measure(shape: dict[str, Any], rounds: int, compile: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        context = language_context(recipe(shape, Path(name), compile))
        placed = PlacedDecoder(starting_decoder(context), context.device, context.dtype, compile)
        trainer = Trainer(context, build_objective(context, placed))
        batches = context.batches(context.rows(context.recipe.data.sources, whole_documents=False))
        reference = Reference(shape["model"], batches, trainer, compile)
        arms: dict[str, Callable[[], object]] = {"kilonova": trainer.train_step, "transformers": reference.train_step}
        for step in arms.values():
            seconds_per_step(step, 2, context.device)
        times: dict[str, list[float]] = {arm: [] for arm in arms}
        for _ in range(rounds):
            for arm, step in arms.items():
                times[arm].append(seconds_per_step(step, shape["steps"], context.device))
    on_gpu = context.device.type == "cuda"
    device_name = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} CPU threads"
    peak = matmul_flops_per_second(context.device, context.dtype)
    nominal = next((rate for name, rate in NOMINAL_FLOPS.items() if name in device_name), None)
    tokens, flops = trainer.objective.tokens_per_step, trainer.objective.flops_per_token
    result: dict[str, Any] = {
        "parameters": placed.decoder.num_parameters(),
        "device": device_name,
        "dtype": str(context.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "tokens_per_step": tokens,
        "matmul_flops_per_second": peak,
    }
    for arm, found in times.items():
        rate = tokens / statistics.median(found)
        result[arm] = {"tokens_per_second": rate, "of_measured_matmul": rate * flops / peak}
        if nominal:
            result[arm]["mfu"] = rate * flops / nominal
    result["ratio"] = statistics.median(
        theirs / ours for ours, theirs in zip(times["kilonova"], times["transformers"], strict=True)
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="micro")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--micro-batch-size", type=int, help="rows a step, instead of the shape's own")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    shape = dict(SHAPES[arguments.shape])
    if arguments.micro_batch_size:
        shape["micro_batch_size"] = arguments.micro_batch_size
    result = {"shape": arguments.shape, **measure(shape, arguments.rounds, not arguments.eager)}
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    table = Table(
        "",
        "tokens/s",
        "of measured matmul",
        "MFU (data sheet)",
        title=f"{arguments.shape}: {result['parameters'] / 1e6:.1f} M parameters, "
        f"{result['dtype']}, {result['device']}",
    )
    for arm in ("kilonova", "transformers"):
        row = result[arm]
        mfu = f"{row['mfu']:.1%}" if "mfu" in row else ""
        table.add_row(arm, f"{row['tokens_per_second']:.0f}", f"{row['of_measured_matmul']:.1%}", mfu)
    table.add_row("times faster", f"{result['ratio']:.2f}", "", "")
    Console().print(table)


if __name__ == "__main__":
    main()
