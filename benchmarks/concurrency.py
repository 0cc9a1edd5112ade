"""Tokens a second of many streams beside other engines, and what running streams feel when a long prompt arrives."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from peers.random_models import models_folder
from peers.rounds import Measured, choose, make_job, run_rounds
from peers.tables import print_notes, print_rows

ARRIVAL_STREAMS = 8


def main(
    model: Annotated[
        str, typer.Option(help="0.6b or small (random weights), a model's name, or a directory.")
    ] = "small",
    streams: Annotated[list[int] | None, typer.Option(help="Streams at once; repeat. 1 to 32 unless given.")] = None,
    bits: Annotated[list[int] | None, typer.Option(help="Bits of a weight; repeat. 16, 8 and 4 unless given.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="Measure this engine only; repeat for more.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to take the median of.")] = 3,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each stream that are timed, after the first.")] = 32,
    arriving_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the prompt that arrives.")] = 2000,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; one a core unless given.")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder for models; in the user's cache unless given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Measure engines in turns, each in its own process: all streams together, in the time after their first tokens.

    For Kilonova alone also the 95th percentile of the time between tokens of eight running streams, before and while
    the prompt of another is processed.

    Example: python benchmarks/concurrency.py --model 0.6b --bits 8 --streams 1 --streams 8
    """
    folder = models or models_folder()
    numbers = tuple(streams or [1, 2, 4, 8, 16, 32])
    job = make_job(
        "streams", model, folder, threads, prompt_tokens=prompt_tokens, new_tokens=new_tokens, streams=numbers
    )
    variants = choose(bits or [16, 8, 4], engine or [])
    outcome = run_rounds(job, variants, rounds, folder, what="streams: runs")
    report = {**outcome.head(), "prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "rounds": rounds}
    report["rows"] = [to_row(measured, numbers) for measured in outcome.measured]
    arrival = replace(job, measure="arrival", streams=(ARRIVAL_STREAMS,), arriving_tokens=arriving_tokens)
    ours = [variant for variant in variants if variant.engine == "kilonova"]
    arrived = run_rounds(arrival, ours, rounds, folder, what="arrival: runs")
    report["arrival"] = {"streams": ARRIVAL_STREAMS, "arriving_tokens": arriving_tokens}
    report["arrival"]["rows"] = [to_arrival_row(measured) for measured in arrived.measured]
    report["failed"] = {**report["failed"], **{f"{name}, arrival": why for name, why in arrived.failed.items()}}
    if as_json:
        print(json.dumps(report, indent=1))
        return
    columns = {"engine": "engine", "name": "weights", "bits": "bits"}
    columns |= {f"tokens_per_s_{number}": f"{number}" for number in numbers}
    print_rows(report, columns, f"tokens/s of all streams, by their number, {prompt_tokens} + {new_tokens} tokens")
    for row in report["arrival"]["rows"]:
        Console(highlight=False).print(
            f"{row['engine']} {row['name']}: when a prompt of {arriving_tokens} tokens arrives at {ARRIVAL_STREAMS} "
            f"streams, the p95 of the time between tokens goes from {row['before_p95_ms']:.1f} to "
            f"{row['during_p95_ms']:.1f} ms ({row['ratio']:.2f} times); its first token takes "
            f"{row['first_token_ms']:.0f} ms"
        )
    print_notes(report)


def to_row(measured: Measured, numbers: tuple[int, ...]) -> dict[str, Any]:
    """Medians of the rounds by number of streams."""
    row: dict[str, Any] = {
        "engine": measured.variant.engine,
        "name": measured.variant.name,
        "bits": measured.variant.bits,
        "version": measured.rounds[0]["version"],
    }
    for number in numbers:
        row[f"tokens_per_s_{number}"] = statistics.median(one["streams"][str(number)] for one in measured.rounds)
    row["rounds"] = [one["streams"] for one in measured.rounds]
    return row


def to_arrival_row(measured: Measured) -> dict[str, Any]:
    """Medians of the rounds; the ratio is the median of the rounds' own."""
    names = ("before_p95_ms", "during_p95_ms", "ratio", "first_token_ms")
    row = {name: statistics.median(one["arrival"][name] for one in measured.rounds) for name in names}
    return {"engine": measured.variant.engine, "name": measured.variant.name, "bits": measured.variant.bits, **row}


if __name__ == "__main__":
    typer.run(main)
