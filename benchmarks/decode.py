"""Decode speed of one stream beside other engines, as a share of the machine's read bandwidth."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Annotated, Any

import typer

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
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens that are timed, after the first.")] = 128,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; one a core unless given.")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder for models; in the user's cache unless given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Measure engines in turns, each in its own process, which measures the read bandwidth as well.

    The share of the bandwidth is tokens a second times the bytes of the weights, by that bandwidth. Peers are measured
    where `make bench-peers` has installed them.

    Example: python benchmarks/decode.py --model 0.6b
    """
    folder = models or models_folder()
    job = make_job("decode", model, folder, threads, prompt_tokens=prompt_tokens, new_tokens=new_tokens)
    outcome = run_rounds(job, choose(bits or [16, 8, 4], engine or []), rounds, folder, what="decode: runs")
    report = {**outcome.head(), "prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "rounds": rounds}
    report["rows"] = [to_row(measured) for measured in outcome.measured]
    if as_json:
        print(json.dumps(report, indent=1))
        return
    columns = {
        "engine": "engine",
        "name": "weights",
        "bits": "bits",
        "weight_mb": "MB",
        "tokens_per_s": "tokens/s",
        "least": "least",
        "most": "most",
        "bandwidth_fraction": "of the read bandwidth",
    }
    print_rows(report, columns, f"decode, one stream, {prompt_tokens} + {new_tokens} tokens")
    print_notes(report)


def to_row(measured: Measured) -> dict[str, Any]:
    """Medians of the rounds, and every round's tokens a second."""
    rates = [one["tokens_per_s"] for one in measured.rounds]
    fractions = [one["tokens_per_s"] * one["weight_bytes"] / one["read_bandwidth"] for one in measured.rounds]
    return {
        "engine": measured.variant.engine,
        "name": measured.variant.name,
        "bits": measured.variant.bits,
        "version": measured.rounds[0]["version"],
        "weight_mb": measured.rounds[0]["weight_bytes"] / 1e6,
        "tokens_per_s": statistics.median(rates),
        "least": min(rates),
        "most": max(rates),
        "bandwidth_fraction": statistics.median(fractions),
        "rounds": rates,
    }


if __name__ == "__main__":
    typer.run(main)
