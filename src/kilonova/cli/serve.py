"""`kilonova serve`: answer Bedrock and OpenAI clients over HTTP."""

from __future__ import annotations

import errno
import ipaddress
import json
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer

from kilonova.core.errors import ConfigError, KilonovaError

app = typer.Typer()

QUESTION = "What do cats eat?"


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DIR", help="Serve this checkpoint too; repeat for more.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=BASE:DIR",
            help="Serve this PEFT directory (LoRA) as NAME beside the model BASE; repeat for more.",
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Directory for imported models and what the server keeps.")] = None,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Requests that run together; more of them wait.")] = 32,
    max_context: Annotated[
        int | None, typer.Option(min=1, help="Longest conversation in tokens, where less than the model's own.")
    ] = None,
    kv_cache_bytes: Annotated[
        int | None,
        typer.Option(min=1, help="Most memory of each model's key-value cache; else a quarter of the machine's."),
    ] = None,
    max_loras: Annotated[
        int, typer.Option(min=1, help="Adapters of each model that are held in memory; others are loaded in turn.")
    ] = 16,
    max_lora_rank: Annotated[int, typer.Option(min=1, help="Highest rank of an adapter.")] = 64,
    quantization: Annotated[
        Literal["int8", "int4"] | None, typer.Option(help="Round the weights to eight or four bits while loading.")
    ] = None,
    speculate: Annotated[
        bool, typer.Option(help="Check guesses of the next words where that pays; the text stays the same.")
    ] = True,
    draft: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Let this smaller model guess for the model NAME; repeat for more."),
    ] = None,
    open_to_network: Annotated[
        bool, typer.Option("--open", help="Allow an address that other machines can reach; anyone there can use it.")
    ] = False,
) -> None:
    """Serve models to boto3, the AWS command line, openai and anything else that speaks these protocols.

    Example: kilonova serve --port 8080 --model mine=runs/mine/model

    Adapters are models to every client: kilonova serve --adapter polite=micro:runs/polite/model
    """
    models = _parse_directories("--model", model or [])
    adapters = _parse_adapters(adapter or [])
    if not is_loopback(host) and not open_to_network:
        raise ConfigError(
            f"--host {host}: other machines can reach this address, and no key is asked for, so anyone there could use "
            "the server; add --open if that is what you want"
        )

    from kilonova.engine.config import EngineConfig
    from kilonova.models.registry import Registry, models_home

    data = data or models_home().parent
    # Read here as well, so that a mistyped model is known before anything heavy is loaded.
    registry = Registry(models, adapters, home=data / "models")
    names = list(dict.fromkeys((*models, *(entry.name for entry in registry.entries()))))
    if not names:
        raise ConfigError("there is no model to serve; name a checkpoint with --model NAME=DIR")

    bedrock_id = registry.get(names[0]).bedrock_id

    from kilonova.serve.run import serve as run_server

    try:
        run_server(
            host=host,
            port=port,
            models=models,
            data_dir=data,
            on_ready=lambda url: print_banner(host, urlsplit(url).port or port, names, bedrock_id),
            adapters=adapters,
            drafts=_parse_directories("--draft", draft or []),
            engine=EngineConfig(
                max_num_seqs=max_num_seqs,
                max_context=max_context,
                kv_cache_bytes=kv_cache_bytes,
                max_loras=max_loras,
                max_lora_rank=max_lora_rank,
                quantization=quantization,
                speculate=speculate,
            ),
        )
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        raise KilonovaError(f"cannot listen on {host} port {port}: {error.strerror}; see --host and --port") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def client_lines(url: str, model: str, bedrock_id: str) -> dict[str, str]:
    """Shell commands that ask a model at `url` a question with boto3, openai and curl, each complete in itself."""
    python = shlex.quote(_python())
    boto3_code = (
        f'import boto3; print(boto3.client("bedrock-runtime", endpoint_url="{url}", region_name="us-east-1", '
        f'aws_access_key_id="local", aws_secret_access_key="local").converse(modelId="{bedrock_id}", '
        f'messages=[{{"role": "user", "content": [{{"text": "{QUESTION}"}}]}}])["output"]["message"])'
    )
    openai_code = (
        f'import openai; print(openai.OpenAI(base_url="{url}/v1", api_key="local").chat.completions.create('
        f'model="{model}", messages=[{{"role": "user", "content": "{QUESTION}"}}]).choices[0].message.content)'
    )
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": QUESTION}]})
    return {
        "boto3": f"{python} -c {shlex.quote(boto3_code)}",
        "openai": f"{python} -c {shlex.quote(openai_code)}",
        "curl": f"curl -s {url}/v1/chat/completions -H 'content-type: application/json' -d {shlex.quote(body)}",
    }


def print_banner(host: str, port: int, names: Sequence[str], bedrock_id: str) -> None:
    """Say where the server is, what it serves, who can use it, and how to ask it something."""
    from rich.console import Console

    console = Console(highlight=False)
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
    console.print(f"\n[bold]Kilonova[/] is ready at [bold cyan]{url}[/]")
    console.print(f"models: {', '.join(names)}")
    if is_loopback(host):
        console.print("open: no key is asked for, and only this machine can reach it")
    else:
        console.print("[bold yellow]open: no key is asked for, and anyone who can reach this machine can use it[/]")
    for client, line in client_lines(url, names[0], bedrock_id).items():
        missing = client != "curl" and find_spec(client) is None
        console.print(f"\n[dim]{client}{f' (pip install {client} first)' if missing else ''}[/]")
        console.print(line, soft_wrap=True, markup=False)
    console.print("\n[dim]Ctrl-C stops it.[/]")


def _python() -> str:
    """The Python to type in a shell here: this one, relative to the working directory where it is below it."""
    executable = Path(sys.executable)
    try:
        return str(executable.relative_to(Path.cwd()))
    except ValueError:
        return str(executable)


def _parse_directories(option: str, items: Sequence[str]) -> dict[str, Path]:
    return {name: Path(directory) for name, directory in _parse_names(option, "NAME=DIR", items).items()}


def _parse_adapters(items: Sequence[str]) -> dict[str, tuple[str, Path]]:
    """Names to base and directory; a base, such as a Bedrock model id, may hold colons."""
    adapters: dict[str, tuple[str, Path]] = {}
    for name, value in _parse_names("--adapter", "NAME=BASE:DIR", items).items():
        base, _, directory = value.rpartition(":")
        if not base or not directory:
            raise ConfigError(f"--adapter {name}={value}: NAME=BASE:DIR is expected, where BASE is a model's name")
        adapters[name] = base, Path(directory)
    return adapters


def _parse_names(option: str, form: str, items: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for item in items:
        name, _, value = item.partition("=")
        if not name or not value:
            raise ConfigError(f"{option} {item}: {form} is expected, as in --model mine=runs/mine/model")
        if name in values:
            raise ConfigError(f"{option} {item}: the name {name!r} is given twice")
        values[name] = value
    return values
