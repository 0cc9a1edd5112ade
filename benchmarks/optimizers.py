"""AdamW against Muon: the validation loss of one small model after equal steps, and the time a step takes.

The text is the Python standard library's own source, which every machine has, or a .txt file of your choice:

    python benchmarks/optimizers.py --steps 300 [--text FILE] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sysconfig
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from kilonova.core.config import parse_config
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.text.bpe import save_tokenizer, train_tokenizer
from kilonova.train.language_run import language_context
from kilonova.train.objectives.language_model import LanguageModelObjective
from kilonova.train.placed import PlacedDecoder
from kilonova.train.recipe import TrainRecipe
from kilonova.train.trainer import Trainer

SHAPE = {
    "model_type": "qwen3",
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
LENGTH = 256


def standard_library() -> str:
    root = Path(sysconfig.get_path("stdlib"))
    return "\n\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in sorted(root.glob("*.py")))


def run(folder: Path, train_text: str, held_out: str, steps: int, optimizer: dict) -> tuple[float, float]:
    """Validation loss in nats a token, and the median of tokens a second over the logged intervals."""
    tokenizer_folder = folder / "tokenizer"
    if not tokenizer_folder.exists():
        (folder / "train.txt").write_text(train_text, encoding="utf-8")
        (folder / "held-out.txt").write_text(held_out, encoding="utf-8")
        save_tokenizer(train_tokenizer([train_text], SHAPE["vocab_size"]), tokenizer_folder, LENGTH)
    output = folder / json.dumps(optimizer).replace("/", "")
    output.mkdir()
    recipe = parse_config(
        TrainRecipe,
        {
            "objective": "pretrain",
            "output": str(output),
            "model": {"config": SHAPE, "tokenizer": str(tokenizer_folder)},
            "data": {
                "root": str(folder),
                "cache": str(folder / "cache"),
                "sequence_length": LENGTH,
                "sources": [{"name": "train", "path": "train.txt"}],
                "validation": [{"name": "held-out", "path": "held-out.txt"}],
            },
            "optimizer": optimizer,
            "schedule": {"warmup_steps": steps // 10, "decay_fraction": 0.3},
            "steps": steps,
            "batch_size": 8,
            "micro_batch_size": 8,
            "evaluate_every": steps,
            "checkpoint_every": steps,
        },
    )
    model = Decoder(DecoderConfig.from_hf(SHAPE))
    model.init_weights(torch.Generator().manual_seed(0))
    context = language_context(recipe)
    placed = PlacedDecoder(model, context.device, context.dtype, recipe.compile)
    objective = LanguageModelObjective(context, placed, whole_documents=False)
    Trainer(context, objective).train()
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    rates = [record["tokens_per_second"] for record in log if "loss" in record][1:]
    return objective.evaluate()["held-out"], statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="a UTF-8 text file of at least a megabyte")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    text = arguments.text.read_text(encoding="utf-8") if arguments.text else standard_library()
    cut = int(len(text) * 0.95)
    candidates = [{"name": "adamw", "lr": lr} for lr in (1e-3, 2e-3, 4e-3, 8e-3)]
    candidates += [{"name": "muon", "lr": 4e-3, "muon_lr": lr} for lr in (2e-3, 4e-3, 8e-3)]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for optimizer in candidates:
            loss, rate = run(Path(folder), text[:cut], text[cut:], arguments.steps, optimizer)
            results.append({**optimizer, "validation_loss": loss, "tokens_per_second": rate})
    if arguments.json:
        print(json.dumps({"steps": arguments.steps, "results": results}))
        return
    table = Table(title=f"{arguments.steps} steps of {8 * LENGTH} tokens")
    for heading in ("optimiser", "lr", "Muon's lr", "validation loss", "tokens/s"):
        table.add_column(heading, justify="right")
    for found in results:
        muon_lr = f"{found['muon_lr']:g}" if "muon_lr" in found else ""
        loss = f"{found['validation_loss']:.3f}"
        table.add_row(found["name"], f"{found['lr']:g}", muon_lr, loss, f"{found['tokens_per_second']:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
