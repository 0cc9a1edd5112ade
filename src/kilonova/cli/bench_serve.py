"""`kilonova bench serve`: measure served models from the client's side."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from kilonova.cli.bench_server import running_server
from kilonova.cli.extras import require_packages
from kilonova.core.errors import ConfigError

if TYPE_CHECKING:
    from kilonova.evals.latency.load import Target

LOCAL = "local"


class Protocol(StrEnum):
    """What an endpoint speaks."""

    openai = "openai"
    openai_chat = "openai-chat"
    bedrock = "bedrock"


def serve(
    url: Annotated[
        list[str] | None,
        typer.Option(help="Server to measure; repeat to compare. local, as without any: one started for --model."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Model at the URL, or for local a name or directory; one, or one a URL.")
    ] = None,
    protocol: Annotated[
        list[Protocol] | None, typer.Option(help="What to speak: one, or one a URL; openai unless given.")
    ] = None,
    api_key: Annotated[
        list[str] | None, typer.Option(help="One, or one a URL; else OPENAI_API_KEY, or AWS's own settings.")
    ] = None,
    price_per_hour: Annotated[
        list[float] | None, typer.Option(min=0, help="What the machine costs, for costs; one, or one a URL.")
    ] = None,
    concurrency: Annotated[
        str, typer.Option(help="Requests at a time: one number or several to go through.")
    ] = "1,2,4,8",
    requests: Annotated[int, typer.Option(help="Requests to measure at each, or as many as at a time.")] = 16,
    input_tokens: Annotated[int, typer.Option(help="Tokens of a prompt, chat template included.")] = 1000,
    output_tokens: Annotated[int, typer.Option(help="Tokens of an answer.")] = 100,
    warmup: Annotated[int, typer.Option(help="Requests before each measurement that do not count.")] = 1,
    repeats: Annotated[
        int | None, typer.Option(help="How often all of it is done; 3 to compare, else 1, unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds make equal prompts.")] = 0,
    tokenizer: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Counts tokens for servers that do not tell them.")
    ] = None,
    output: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for report.html, PNGs and JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Measure time to first token, inter-token latency, throughput and cost of served models, and compare them.

    A closed loop sends prompts of random words and reads the answers as they stream. Endpoints that are compared take
    turns in one run. openai is /v1/completions, openai-chat /v1/chat/completions, bedrock ConverseStream.

    Example: kilonova bench serve --model micro --output bench/

    Example: kilonova bench serve --url http://127.0.0.1:8000/v1 --url local --model qwen --model checkpoints/qwen

    Example: kilonova bench serve --url http://127.0.0.1:8080 --protocol bedrock --model amazon.nova-micro-v1:0
    """
    urls = url or [LOCAL]
    require_packages(["httpx2"], "clients")
    if output is not None:
        require_packages(["matplotlib"], "data")

    from kilonova.evals.latency.load import LoadConfig, measure
    from kilonova.evals.latency.report import summarise
    from kilonova.evals.latency.tables import notes, tables

    config = LoadConfig(
        concurrency=_parse_concurrency(concurrency),
        requests=requests,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        warmup=warmup,
        repeats=(3 if len(urls) > 1 else 1) if repeats is None else repeats,
        seed=seed,
    )
    models = _spread("--model", model or [None], len(urls))
    protocols = _spread("--protocol", protocol or [Protocol.openai], len(urls))
    keys = _spread("--api-key", api_key or [None], len(urls))
    prices = _spread("--price-per-hour", price_per_hour or [None], len(urls))
    most = max(config.concurrency)
    with ExitStack() as stack:
        targets = [
            _target(stack, *each, tokenizer, most) for each in zip(urls, models, protocols, keys, prices, strict=True)
        ]
        report = summarise(asyncio.run(measure(_with_names(targets), config)), config)
    if output is not None:
        from kilonova.evals.latency.page import write_report

        write_report(output, report)
    if as_json:
        print(json.dumps(report.to_dict()))
        return

    from rich.console import Console

    for table in tables(report):
        Console().print(table)
    for note in notes(report):
        Console().print(note, highlight=False, markup=False)
    if output is not None:
        Console().print(f"{output / 'report.html'} shows it.")


def _target(
    stack: ExitStack,
    url: str,
    model: str | None,
    protocol: Protocol,
    api_key: str | None,
    price_per_hour: float | None,
    tokenizer: Path | None,
    connections: int,
) -> Target:
    """The endpoint under its URL; for a local one its server is started first, and lives as long as `stack`."""
    from kilonova.evals.latency.bedrock_endpoint import BedrockEndpoint
    from kilonova.evals.latency.endpoint import Endpoint
    from kilonova.evals.latency.load import Target
    from kilonova.evals.latency.openai_endpoint import OpenAIEndpoint, base_url, only_model
    from kilonova.text.tokenizer import Tokenizer

    place = urlsplit(url).netloc or url
    if url == LOCAL:
        from kilonova.cli.models import find_directory

        if model is None:
            raise ConfigError("--model: name the model, or the directory of a checkpoint, to start a server for")
        directory = find_directory(model).resolve()
        model = directory.name
        url = stack.enter_context(running_server(directory, model, max_num_seqs=connections))
    else:
        url = base_url(url) if protocol is not Protocol.bedrock else url
    endpoint: Endpoint
    if protocol is Protocol.bedrock:
        if model is None:
            raise ConfigError("--model: the bedrock protocol has no list of models to take it from")
        endpoint = BedrockEndpoint(url, model, api_key=api_key, connections=connections)
    else:
        api_key = api_key or os.environ.get("OPENAI_API_KEY")
        model = model or only_model(url, api_key)
        kind: Literal["chat", "completions"] = "chat" if protocol is Protocol.openai_chat else "completions"
        endpoint = OpenAIEndpoint(url, model, kind=kind, api_key=api_key, connections=connections)
    return Target(
        name=f"{model} at {place}",
        protocol=protocol.value,
        url=url,
        model=model,
        endpoint=endpoint,
        price_per_hour=price_per_hour,
        tokenizer=None if tokenizer is None else Tokenizer.from_directory(tokenizer),
        is_chat=protocol is not Protocol.openai,
    )


def _with_names(targets: Sequence[Target]) -> list[Target]:
    """The targets under names that differ."""
    names = [target.name for target in targets]
    if len(set(names)) < len(names):
        names = [f"{name}, {target.protocol}" for name, target in zip(names, targets, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{name} ({place})" for place, name in enumerate(names, start=1)]
    return [replace(target, name=name) for name, target in zip(names, targets, strict=True)]


def _parse_concurrency(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--concurrency {text}: whole numbers with commas between them are expected") from None


def _spread(option: str, values: Sequence[Any], count: int) -> list[Any]:
    """One value for each URL, where one may stand for all."""
    if len(values) not in (1, count):
        raise ConfigError(f"{option}: is given {len(values)} times for {count} URLs; give it once, or once for each")
    return list(values) if len(values) == count else [values[0]] * count
