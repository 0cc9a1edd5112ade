"""Speed of processing a prompt beside other engines, as a share of the machine's matrix-product rate."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from kilonova.core.device import choose_dtype
from kilonova.models.checkpoint import load_config
from kilonova.models.decoder.config import DecoderConfig
from kilonova.train.meter import matmul_flops_per_second
from peers.random_models import models_folder
from peers.rounds import Measured, choose, make_job, run_rounds
from peers.tables import print_notes, print_rows


def main(
    model: Annotated[
        str, typer.Option(help="0.6b or small (random weights), a model's name, or a directory.")
    ] = "small",
    bits: Annotated[list[int] | None, typer.Option(help="Bits of a weight; repeat. 16, 8 and 4 unless given.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="Measure this engine only; repeat for more.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to take the median of.")] = 3,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 512,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; one a core unless given.")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder for models; in the user's cache unless given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Measure engines in turns, each in its own process; the rate of matrix products is measured between the rounds.

    It is the best rate of a large square product, in bfloat16 where the processor multiplies that itself, else, and for
    float32 weights, in float32. The share is of the FLOPs of the model's matrices and of attention.

    Example: python benchmarks/prefill.py --model 0.6b
    """
    folder = models or models_folder()
    job = make_job("prefill", model, folder, threads, prompt_tokens=prompt_tokens, new_tokens=1)
    torch.set_num_threads(job.threads)
    variants = choose(bits or [16, 8, 4], engine or [])
    before = gemm_rates()
    outcome = run_rounds(job, variants, rounds, folder, what="prefill: runs")
    after = gemm_rates()
    rates = {name: max(before[name], after[name]) for name in before}
    flops = prefill_flops(load_config(Path(job.model)), prompt_tokens)
    report = {**outcome.head(), "prompt_tokens": prompt_tokens, "rounds": rounds, "prefill_gflop": flops / 1e9}
    report["gemm_gflop_s"] = {name: rate / 1e9 for name, rate in rates.items()}
    report["rows"] = [to_row(measured, flops / prompt_tokens, rates) for measured in outcome.measured]
    if as_json:
        print(json.dumps(report, indent=1))
        return
    columns = {
        "engine": "engine",
        "name": "weights",
        "bits": "bits",
        "tokens_per_s": "tokens/s",
        "least": "least",
        "most": "most",
        "gemm_fraction": "of the matrix-product rate",
    }
    print_rows(report, columns, f"prompt of {prompt_tokens} tokens")
    print_notes(report)


def gemm_rates() -> dict[str, float]:
    """FLOPs a second of a large matrix product: in float32, and in bfloat16 where the processor multiplies that."""
    device = torch.device("cpu")
    types = {torch.float32, choose_dtype("auto", device)}
    return {str(dtype).removeprefix("torch."): matmul_flops_per_second(device, dtype) for dtype in types}


def prefill_flops(config: DecoderConfig, tokens: int) -> float:
    """FLOPs from a prompt to its first token: two for a weight and token, causal attention, one row of logits.

    Dense layers with full attention, as the models measured here have.
    """
    attention = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    weights = config.hidden_size * (2 * attention + 2 * keys + 3 * config.intermediate_size)
    # Scores and their product with values, two FLOPs each, over half of the pairs.
    layer = 2 * weights * tokens + 4 * attention * tokens * (tokens + 1) / 2
    return config.num_hidden_layers * layer + 2 * config.hidden_size * config.vocab_size


def to_row(measured: Measured, flops_per_token: float, gemm: dict[str, float]) -> dict[str, Any]:
    """Medians of the rounds, and every round's tokens a second."""
    rates = [one["tokens_per_s"] for one in measured.rounds]
    rate = statistics.median(rates)
    limit = gemm["float32"] if measured.variant.bits == 32 else max(gemm.values())
    return {
        "engine": measured.variant.engine,
        "name": measured.variant.name,
        "bits": measured.variant.bits,
        "version": measured.rounds[0]["version"],
        "tokens_per_s": rate,
        "least": min(rates),
        "most": max(rates),
        "gemm_fraction": rate * flops_per_token / limit,
        "rounds": rates,
    }


if __name__ == "__main__":
    typer.run(main)
