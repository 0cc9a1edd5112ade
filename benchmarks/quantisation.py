"""What eight and four bits cost: bits per byte and size of a model, quantised in every way.

All models read the same held-out text in float32 arithmetic, so that the weights alone make the difference, and the
figures are the same on every run. Calibration (GPTQ) and held-out text are documentation strings of Python's standard
library, of different modules, or files of your choice:

    python benchmarks/quantisation.py [--model DIR] [--text FILE] [--calibration FILE] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from kilonova.cli.models import find_directory
from kilonova.evals.comparison import held_out_texts
from kilonova.evals.scoring import score_texts
from kilonova.models.checkpoint import load_decoder
from kilonova.models.quantization.quantize import QuantizationConfig, quantize_directory
from kilonova.text.tokenizer import Tokenizer

CONTEXT = 1024
WAYS: dict[str, QuantizationConfig | None] = {
    "as stored": None,
    "int8": QuantizationConfig(number_format="int8"),
    "fp8": QuantizationConfig(number_format="fp8"),
    "int4, group 128": QuantizationConfig(number_format="int4", group_size=128),
    "int4, group 64": QuantizationConfig(number_format="int4", group_size=64),
    "int4, group 32": QuantizationConfig(number_format="int4", group_size=32),
    "int4, group 128, GPTQ": QuantizationConfig(number_format="int4", group_size=128, method="gptq"),
    "int4, group 64, GPTQ": QuantizationConfig(number_format="int4", group_size=64, method="gptq"),
    "int4, group 64, GPTQ, inputs in their order": QuantizationConfig(
        number_format="int4", group_size=64, method="gptq", activation_order=False
    ),
}


def measure(directory: Path, texts: list[str]) -> tuple[float, int]:
    """Bits per byte in float32 arithmetic, and bytes of the weights on disk."""
    model, tokenizer = load_decoder(directory, dtype=torch.float32), Tokenizer.from_directory(directory)
    size = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    return score_texts(model, tokenizer, texts, context=CONTEXT).bits_per_byte, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="micro", help="a model's name or directory")
    parser.add_argument("--text", type=Path, help="held-out text, .txt or .jsonl(.zst) with text")
    parser.add_argument("--calibration", type=Path, help="text for GPTQ, .txt or .jsonl(.zst) with text or messages")
    parser.add_argument("--kibibytes", type=int, default=256, help="of held-out text to read")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    source = find_directory(arguments.model)
    texts = held_out_texts(arguments.text, arguments.kibibytes * 1024)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, config) in enumerate(WAYS.items()):
            directory = source
            if config is not None:
                directory = Path(folder) / str(number)
                quantize_directory(source, directory, config, calibration=arguments.calibration, quiet=True)
            bits, size = measure(directory, texts)
            base = rows[0]["bits_per_byte"] if rows else bits
            described = {"bits_per_byte": bits, "change_percent": 100 * (bits / base - 1), "weight_bytes": size}
            rows.append({"name": name, **described})
    text_bytes = sum(len(text.encode()) for text in texts)
    if arguments.json:
        print(json.dumps({"model": str(arguments.model), "text_bytes": text_bytes, "rows": rows}))
        return
    table = Table(title=f"{arguments.model}: {text_bytes:,} bytes of held-out text")
    for heading in ("weights", "bits per byte", "change", "bytes on disk"):
        table.add_column(heading, justify="left" if heading == "weights" else "right")
    for row in rows:
        change = f"{row['change_percent']:+.2f} %"
        table.add_row(row["name"], f"{row['bits_per_byte']:.4f}", change, f"{row['weight_bytes']:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
