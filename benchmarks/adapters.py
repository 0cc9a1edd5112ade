"""Tokens a second of many streams of one model: without adapters, with the same one, and each with its own."""

from __future__ import annotations

import json
import random
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from kilonova.core.types import Finished, GenerationRequest, SamplingParams
from kilonova.engine.config import EngineConfig, Quantization
from kilonova.engine.engine import Engine
from kilonova.models.adapter import AdapterConfig, adapter_layers, attach_adapter, save_adapter
from kilonova.models.checkpoint import load_config
from kilonova.models.decoder.model import Decoder
from peers.random_models import find_model, models_folder

# Ordinary tokens of every vocabulary start below this id.
FIRST_TOKEN_ID = 300
QUANTIZATION: dict[int, Quantization | None] = {16: None, 8: "int8", 4: "int4"}


def main(
    model: Annotated[
        str, typer.Option(help="0.6b or small (random weights), a model's name, or a directory.")
    ] = "small",
    streams: Annotated[int, typer.Option(min=1, help="Streams at once, each with an adapter of its own.")] = 16,
    rank: Annotated[int, typer.Option(min=1, max=64, help="Rank of every adapter.")] = 16,
    target: Annotated[
        list[str] | None, typer.Option(help="Layers with adapters; repeat. All linear ones unless given.")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 32,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each stream that are timed, after the first.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to take the median of.")] = 5,
    bits: Annotated[int, typer.Option(help="Bits of a weight: 16 as stored, 8 or 4.")] = 16,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; PyTorch's default if left out.")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder for models; in the user's cache unless given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Measure in turns, in one process and one engine: all streams together, in the time after their first tokens.

    Example: python benchmarks/adapters.py --model 0.6b --rank 64
    """
    if threads is not None:
        torch.set_num_threads(threads)
    directory = find_model(model, models or models_folder())
    config = AdapterConfig(rank=rank, target_modules=None if target is None else tuple(target))
    if bits not in QUANTIZATION:
        raise typer.BadParameter(f"{bits} is not one of {', '.join(map(str, QUANTIZATION))}", param_hint="--bits")
    limits = EngineConfig(max_num_seqs=streams, max_loras=streams, quantization=QUANTIZATION[bits], speculate=False)
    engine = Engine.from_directory(directory, limits)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            names = [f"adapter-{number}" for number in range(streams)]
            for name, path in zip(names, write_adapters(directory, config, Path(temporary), streams), strict=True):
                engine.add_adapter(name, path)
            cases = {"none": [""] * streams, "one": names[:1] * streams, "each its own": names}
            run = Runner(engine, prompt_tokens, new_tokens)
            for adapters in cases.values():
                run.streams(adapters, 2)
            measured = [{case: run.rate(adapters) for case, adapters in cases.items()} for _ in range(rounds)]
    finally:
        engine.close()
    report: dict[str, Any] = {
        "model": directory.name,
        "bits": bits,
        "threads": torch.get_num_threads(),
        "streams": streams,
        "rank": rank,
        "targets": target,
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "rounds": rounds,
        "rows": [
            {
                "adapters": case,
                "tokens_per_s": statistics.median(one[case] for one in measured),
                "of_base": statistics.median(one[case] / one["none"] for one in measured),
                "rounds": [one[case] for one in measured],
            }
            for case in cases
        ],
    }
    if as_json:
        print(json.dumps(report, indent=1))
    else:
        print_report(report)


class Runner:
    """Sends streams to an engine, no two with the same prompt."""

    def __init__(self, engine: Engine, prompt_tokens: int, new_tokens: int) -> None:
        self._engine = engine
        self._prompt_tokens, self._new_tokens = prompt_tokens, new_tokens
        self._random = random.Random(0)

    def rate(self, adapters: list[str]) -> float:
        """Tokens a second of all streams; the time to their first tokens is measured alone and taken away."""
        seconds = self.streams(adapters, self._new_tokens + 1) - self.streams(adapters, 1)
        return len(adapters) * self._new_tokens / seconds

    def streams(self, adapters: list[str], new_tokens: int) -> float:
        """Seconds until every stream, each with an adapter of this list, has its tokens."""
        generations = [self._engine.submit(self._request(adapter, new_tokens)) for adapter in adapters]
        ends = [event for generation in generations for event in generation if isinstance(event, Finished)]
        return max(finished.latency for finished in ends)

    def _request(self, adapter: str, new_tokens: int) -> GenerationRequest:
        draw = self._random.randrange
        prompt = tuple(draw(FIRST_TOKEN_ID, self._engine.tokenizer.vocab_size) for _ in range(self._prompt_tokens))
        sampling = SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True)
        return GenerationRequest(model="benchmark", adapter=adapter, prompt=prompt, sampling=sampling)


@torch.no_grad()
def write_adapters(model: Path, config: AdapterConfig, folder: Path, count: int) -> Iterator[Path]:
    """Random adapters of `model`, whose weights are not needed for it."""
    with torch.device("meta"):
        decoder = Decoder(load_config(model))
    attach_adapter(decoder, config)
    for layer in adapter_layers(decoder).values():
        layer.lora_A = torch.nn.Parameter(torch.empty(layer.lora_A.shape, dtype=torch.bfloat16))
        layer.lora_B = torch.nn.Parameter(torch.empty(layer.lora_B.shape, dtype=torch.bfloat16))
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        for layer in adapter_layers(decoder).values():
            layer.lora_A.normal_(0, layer.in_features**-0.5, generator=generator)
            layer.lora_B.normal_(0, 0.01, generator=generator)
        path = folder / f"adapter-{number}"
        save_adapter(decoder, path, base=str(model))
        yield path


def print_report(report: dict[str, Any]) -> None:
    """The report as a table."""
    title = (
        f"{report['model']}: {report['streams']} streams, adapters of rank {report['rank']}, {report['bits']} bits, "
        f"{report['threads']} threads, {report['prompt_tokens']} + {report['new_tokens']} tokens, "
        f"median of {report['rounds']} rounds"
    )
    table = Table("adapters", "tokens/s", "of the base", title=title)
    for row in report["rows"]:
        table.add_row(row["adapters"], f"{row['tokens_per_s']:.1f}", f"{row['of_base']:.1%}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
