"""Time to the first token of a request whose prompt starts like that of an earlier one, beside the earlier one's."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from kilonova.core.types import Finished, GenerationRequest, SamplingParams
from kilonova.engine.config import EngineConfig
from kilonova.engine.engine import Engine
from kilonova.models.checkpoint import load_decoder
from kilonova.models.registry import Registry
from kilonova.text.tokenizer import Tokenizer

SHIPPED = "micro"


def main(
    model: Annotated[Path | None, typer.Option(help="Model directory; the shipped micro if left out.")] = None,
    shared_tokens: Annotated[int, typer.Option(min=1, help="Tokens both prompts start with.")] = 1000,
    own_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each prompt after these.")] = 16,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate for each request.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of requests to take the median of.")] = 9,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; PyTorch's default if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Send pairs of requests that share the start of their prompts, one after the other, and report the medians."""
    if threads is not None:
        torch.set_num_threads(threads)
    directory = model or Registry().get(SHIPPED).directory
    tokenizer = Tokenizer.from_directory(directory)
    tokenizer.stop_token_ids = frozenset()
    engine = Engine(load_decoder(directory, dtype=getattr(torch, dtype)), tokenizer, EngineConfig(max_num_seqs=4))
    try:
        pairs = [run_pair(engine, shared_tokens, own_tokens, new_tokens, seed) for seed in range(rounds + 1)][1:]
    finally:
        engine.close()
    first, second = (
        statistics.median(pair[which]["first_token_ms"] for pair in pairs) for which in ("first", "second")
    )
    report: dict[str, Any] = {
        "model": directory.name,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "shared_tokens": shared_tokens,
        "own_tokens": own_tokens,
        "rounds": rounds,
        "first_token_ms": {"first": first, "second": second},
        "ratio": statistics.median(
            pair["second"]["first_token_ms"] / pair["first"]["first_token_ms"] for pair in pairs
        ),
        "cached_tokens": statistics.median(pair["second"]["cached_tokens"] for pair in pairs),
        "pairs": pairs,
    }
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report)


def run_pair(engine: Engine, shared: int, own: int, new_tokens: int, seed: int) -> dict[str, dict[str, float]]:
    """Both requests of a pair; no other pair has the same tokens."""
    generator = torch.Generator().manual_seed(seed)
    vocab_size = engine.tokenizer.vocab_size
    start = torch.randint(vocab_size, (shared,), generator=generator).tolist()
    result = {}
    for name in ("first", "second"):
        prompt = (*start, *torch.randint(vocab_size, (own,), generator=generator).tolist())
        sampling = SamplingParams(temperature=0, max_tokens=new_tokens)
        *_, finished = engine.submit(GenerationRequest(model="benchmark", prompt=prompt, sampling=sampling))
        assert isinstance(finished, Finished)
        result[name] = {
            "first_token_ms": finished.time_to_first_token * 1000,
            "cached_tokens": finished.usage.cache_read_input_tokens,
        }
    return result


def print_report(report: dict[str, Any]) -> None:
    """The report as a table."""
    title = (
        f"{report['model']}: {report['shared_tokens']} shared + {report['own_tokens']} own tokens, {report['dtype']}, "
        f"{report['threads']} threads, median of {report['rounds']} pairs"
    )
    table = Table("request", "tokens from the cache", "time to first token, ms", "share of the first", title=title)
    times = report["first_token_ms"]
    table.add_row("first", "0", f"{times['first']:.2f}", "")
    table.add_row("second", f"{report['cached_tokens']:.0f}", f"{times['second']:.2f}", f"{report['ratio']:.1%}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
