"""A small model trained alone against the same model distilled from a larger one, at equal tokens.

Student and distilled student start from the same weights and read the same rows in the same order; the teacher has read
more rows of the same training text, and the held-out text is new to all. The text is the Python standard library's own
source, which every machine has, or a .txt file of your choice:

    python benchmarks/distillation.py --steps 120 --seeds 3 [--text FILE] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from kilonova.text.bpe import save_tokenizer, train_tokenizer
from kilonova.train.run import train

LENGTH, BATCH_SIZE, VOCAB_SIZE = 128, 16, 1024
SHAPE = {
    "model_type": "qwen3",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
TEACHER = {**SHAPE, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 3}
STUDENT = {**SHAPE, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2}
METHODS: dict[str, dict[str, Any] | None] = {
    "alone": None,
    "forward KL": {},
    "forward KL, half hard labels": {"hard_weight": 0.5},
    "forward KL, top 32": {"top_k": 32},
    "reverse KL": {"beta": 1.0},
}


def standard_library() -> str:
    root = Path(sysconfig.get_path("stdlib"))
    return "\n\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in sorted(root.glob("*.py")))


def run(folder: Path, name: str, shape: dict[str, Any], steps: int, seed: int, distill: dict[str, Any] | None) -> float:
    """Validation loss in nats a token after a run whose model is `folder/name/model`."""
    recipe = {
        "objective": "pretrain" if distill is None else "distill",
        "output": str(folder / name),
        "model": {"config": shape, "tokenizer": str(folder / "tokenizer")},
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
        "compile": False,
        "evaluate_every": steps,
        "checkpoint_every": steps,
    }
    if distill is not None:
        recipe["distill"] = {"teacher": str(folder / "teacher" / "model"), **distill}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    record = json.loads((train(path) / "training.json").read_text())
    return record["validation_loss"]["held-out"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="a UTF-8 text file of at least a megabyte")
    parser.add_argument("--steps", type=int, default=120, help="of a student")
    parser.add_argument("--teacher-steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    text = arguments.text.read_text(encoding="utf-8") if arguments.text else standard_library()
    cut = int(len(text) * 0.95)
    losses: dict[str, list[float]] = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.txt").write_text(text[:cut], encoding="utf-8")
        (folder / "held-out.txt").write_text(text[cut:], encoding="utf-8")
        save_tokenizer(train_tokenizer([text[:cut]], VOCAB_SIZE), folder / "tokenizer", LENGTH)
        teacher = run(folder, "teacher", TEACHER, arguments.teacher_steps, 0, None)
        for seed in range(1, arguments.seeds + 1):
            for number, (method, distill) in enumerate(METHODS.items()):
                losses[method].append(run(folder, f"{seed}-{number}", STUDENT, arguments.steps, seed, distill))
    if arguments.json:
        steps = {"steps": arguments.steps, "teacher_steps": arguments.teacher_steps}
        print(json.dumps({**steps, "teacher_loss": teacher, "losses": losses}))
        return
    tokens = arguments.steps * BATCH_SIZE * LENGTH
    table = Table(title=f"Students after {tokens:,} tokens; the teacher has {teacher:.3f} nats a token")
    for heading in ("student", "validation loss", "against alone, by seed"):
        table.add_column(heading, justify="left" if heading == "student" else "right")
    for method, found in losses.items():
        differences = [f"{loss - alone:+.3f}" for loss, alone in zip(found, losses["alone"], strict=True)]
        table.add_row(method, f"{statistics.mean(found):.3f}", " ".join(differences) if method != "alone" else "")
    Console().print(table)


if __name__ == "__main__":
    main()
