"""Whether a model learns the same under super-selective checkpointing: losses of runs that differ in `memory` only.

For each seed the same small model reads the same rows in the same order under `none`, `ssc` and `ssc8`; what policies
change is compared with what seeds change. The text is the Python standard library's own source, or a file of yours:

    python benchmarks/ssc_convergence.py --steps 1000 --seeds 3 [--data FILE] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sysconfig
import tempfile
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from kilonova.text.bpe import save_tokenizer, train_tokenizer
from kilonova.train.run import train

POLICIES = ("none", "ssc", "ssc8")
LENGTH, BATCH_SIZE, VOCAB_SIZE = 256, 8, 2048
SHAPE = {
    "model_type": "qwen3",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


def standard_library() -> str:
    root = Path(sysconfig.get_path("stdlib"))
    return "\n\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in sorted(root.glob("*.py")))


def held_out_loss(folder: Path, policy: str, steps: int, seed: int) -> float:
    """Nats a token on held-out text after a run."""
    recipe = {
        "objective": "pretrain",
        "output": str(folder / f"{policy}-{seed}"),
        "model": {"config": SHAPE, "tokenizer": str(folder / "tokenizer")},
        "data": {
            "root": str(folder),
            "cache": str(folder / "cache"),
            "sequence_length": LENGTH,
            "sources": [{"name": "train", "path": "train.txt"}],
            "validation": [{"name": "held-out", "path": "held-out.txt"}],
        },
        "optimizer": {"name": "muon", "lr": 0.004, "muon_lr": 0.004},
        "schedule": {"warmup_steps": steps // 10, "decay_fraction": 0.3},
        "steps": steps,
        "batch_size": BATCH_SIZE,
        "micro_batch_size": BATCH_SIZE,
        "seed": seed,
        "memory": policy,
        "dtype": "auto",
        "compile": False,
        "evaluate_every": steps,
        "checkpoint_every": steps,
    }
    path = folder / f"{policy}-{seed}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return json.loads((train(path) / "training.json").read_text())["validation_loss"]["held-out"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a UTF-8 text file of at least a megabyte")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3, help="at least two")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds: a spread needs at least two")
    text = arguments.data.read_text(encoding="utf-8") if arguments.data else standard_library()
    cut = int(len(text) * 0.95)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.txt").write_text(text[:cut], encoding="utf-8")
        (folder / "held-out.txt").write_text(text[cut:], encoding="utf-8")
        save_tokenizer(train_tokenizer([text[:cut]], VOCAB_SIZE), folder / "tokenizer", LENGTH)
        seeds = range(arguments.seeds)
        losses = {
            policy: [held_out_loss(folder, policy, arguments.steps, seed) for seed in seeds] for policy in POLICIES
        }
    spread = max(losses["none"]) - min(losses["none"])
    differences = {
        policy: [found - plain for found, plain in zip(losses[policy], losses["none"], strict=True)]
        for policy in POLICIES
    }
    within = {policy: max(map(abs, found)) <= spread for policy, found in differences.items() if policy != "none"}
    if arguments.json:
        print(json.dumps({"steps": arguments.steps, "losses": losses, "seed_spread": spread, "within_spread": within}))
        return
    tokens = arguments.steps * BATCH_SIZE * LENGTH
    table = Table(title=f"Held-out loss after {tokens:,} tokens; seeds alone differ by {spread:.4f}")
    for heading in ("memory", "mean loss", "against none, by seed", "within the seeds' spread"):
        table.add_column(heading, justify="left" if heading == "memory" else "right")
    for policy, found in losses.items():
        by_seed = " ".join(f"{difference:+.4f}" for difference in differences[policy])
        verdict = "" if policy == "none" else "yes" if within[policy] else "no"
        table.add_row(policy, f"{statistics.mean(found):.4f}", by_seed if policy != "none" else "", verdict)
    Console().print(table)


if __name__ == "__main__":
    main()
