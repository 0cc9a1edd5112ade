"""Tokens a second with and without guesses of the next tokens, for summaries of documents; the text must not change.

The documents are the documentation of Python's standard library, and the guesses come from the text so far, or of a
smaller model given as `--draft`. How much they gain depends on how often an answer repeats its document, and on what a
step of several tokens costs beside one of one token.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from kilonova.core.types import Finished, GenerationRequest, Message, SamplingParams, TextBlock, TextDelta
from kilonova.data.standard_library import documentation
from kilonova.engine.config import EngineConfig
from kilonova.engine.engine import Engine
from kilonova.models.registry import Registry

SHIPPED = "micro"
INSTRUCTION = "Summarise this document:\n\n"


def main(
    model: Annotated[Path | None, typer.Option(help="Model directory; the shipped micro if left out.")] = None,
    draft: Annotated[Path | None, typer.Option(help="Directory of a smaller model of the same vocabulary.")] = None,
    documents: Annotated[int, typer.Option(min=1, help="Documents to summarise.")] = 8,
    characters: Annotated[int, typer.Option(min=1, help="What is read of each document.")] = 2000,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each summary.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 for greedy text.")] = 0.0,
    rounds: Annotated[int, typer.Option(min=1, help="Times each document is summarised each way.")] = 3,
    quantization: Annotated[str | None, typer.Option(help="int8 or int4.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; PyTorch's default if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Summarise documents one after another with and without guesses, in turns, and report medians of the ratios."""
    if threads is not None:
        torch.set_num_threads(threads)
    directory = model or Registry().get(SHIPPED).directory
    engines = {
        name: Engine.from_directory(
            directory,
            EngineConfig(max_num_seqs=2, quantization=quantization, speculate=name == "with"),  # type: ignore[arg-type]
            dtype="float32",
            draft_directory=draft if name == "with" else None,
        )
        for name in ("without", "with")
    }
    rows = []
    try:
        for index, text in enumerate(documentation("held-out")[:documents]):
            request = summary_request(text[:characters], new_tokens, temperature, index)
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
            for _ in range(rounds):
                for name, engine in engines.items():
                    runs[name].append(generate(engine, request))
            rows.append(compare(runs))
    finally:
        for engine in engines.values():
            engine.close()
    report = {
        "model": directory.name,
        "draft": None if draft is None else draft.name,
        "quantization": quantization,
        "temperature": temperature,
        "threads": torch.get_num_threads(),
        "new_tokens": new_tokens,
        "speedup": statistics.median(row["speedup"] for row in rows),
        "same_text": all(row["same_text"] for row in rows),
        "rows": rows,
    }
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report)


def summary_request(document: str, new_tokens: int, temperature: float, seed: int) -> GenerationRequest:
    """A request for a summary of `new_tokens` tokens, no fewer."""
    sampling = SamplingParams(temperature=temperature, max_tokens=new_tokens, seed=seed, ignore_eos=True)
    message = Message("user", (TextBlock(INSTRUCTION + document),))
    return GenerationRequest(model="benchmark", messages=(message,), sampling=sampling)


def generate(engine: Engine, request: GenerationRequest) -> dict[str, Any]:
    """The text, and the tokens a second after the first."""
    text: list[str] = []
    first = 0.0
    for event in engine.submit(request):
        if isinstance(event, TextDelta):
            first = first or time.perf_counter()
            text.append(event.text)
        elif isinstance(event, Finished):
            seconds = event.latency - event.time_to_first_token
            return {"text": "".join(text), "tokens_per_s": (event.usage.output_tokens - 1) / seconds}
    raise RuntimeError("a generation ended without its last event")


def compare(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians of one document's runs."""
    rates = {name: statistics.median(run["tokens_per_s"] for run in several) for name, several in runs.items()}
    ratios = [b["tokens_per_s"] / a["tokens_per_s"] for a, b in zip(runs["without"], runs["with"], strict=True)]
    texts = {run["text"] for several in runs.values() for run in several}
    return {"tokens_per_s": rates, "speedup": statistics.median(ratios), "same_text": len(texts) == 1}


def print_report(report: dict[str, Any]) -> None:
    """The report as a table, a row a document."""
    title = (
        f"{report['model']}, {report['quantization'] or 'float32'}, temperature {report['temperature']:g}, "
        f"{report['threads']} threads, {report['new_tokens']} tokens each"
    )
    table = Table("document", "tokens/s without", "tokens/s with guesses", "speed-up", "same text", title=title)
    for number, row in enumerate(report["rows"], start=1):
        rates = row["tokens_per_s"]
        table.add_row(
            str(number),
            f"{rates['without']:.0f}",
            f"{rates['with']:.0f}",
            f"{row['speedup']:.2f}",
            "yes" if row["same_text"] else "NO",
        )
    table.add_row("median", "", "", f"{report['speedup']:.2f}", "yes" if report["same_text"] else "NO")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
