"""`kilonova serve`: answer Bedrock and OpenAI clients over HTTP."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from kilonova.core.errors import ConfigError, KilonovaError

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry
    from kilonova.serve.run import Running
    from kilonova.serve.settings import Settings

app = typer.Typer()

QUESTION = "What do cats eat?"


def _print_config(wanted: bool) -> None:
    if wanted:
        from kilonova.serve.settings import default_file

        typer.echo(default_file(), nl=False)
        raise typer.Exit


@app.command()
def serve(
    config: Annotated[
        Path | None, typer.Option(help="Settings file; kilonova.toml in the data directory if there is one.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.", show_default="8080"),
    ] = None,
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
    max_num_seqs: Annotated[
        int | None, typer.Option(min=1, help="Requests that run together; more of them wait.", show_default="32")
    ] = None,
    max_context: Annotated[
        int | None, typer.Option(min=1, help="Longest conversation in tokens, where less than the model's own.")
    ] = None,
    kv_cache_bytes: Annotated[
        int | None,
        typer.Option(min=1, help="Most memory of each model's key-value cache; else a quarter of the machine's."),
    ] = None,
    max_loras: Annotated[
        int | None,
        typer.Option(
            min=1, help="Adapters of each model that are held in memory; others are loaded in turn.", show_default="16"
        ),
    ] = None,
    max_lora_rank: Annotated[
        int | None, typer.Option(min=1, help="Highest rank of an adapter.", show_default="64")
    ] = None,
    quantization: Annotated[
        Literal["int8", "int4"] | None, typer.Option(help="Round the weights to eight or four bits while loading.")
    ] = None,
    speculate: Annotated[
        bool | None,
        typer.Option(
            "--speculate/--no-speculate",
            help="Check guesses of the next words where that pays; the text stays the same.",
            show_default="speculate",
        ),
    ] = None,
    draft: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Let this smaller model guess for the model NAME; repeat for more."),
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="URL of the database; else SQLite in the data directory.")
    ] = None,
    tls: Annotated[
        bool | None, typer.Option("--tls", help="Speak HTTPS, with a certificate of its own unless one is named.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Certificate chain for HTTPS (PEM).")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Private key of the certificate (PEM).")
    ] = None,
    log_format: Annotated[
        Literal["text", "json"] | None, typer.Option(help="Log lines for people, or JSON.", show_default="text")
    ] = None,
    open_to_network: Annotated[
        bool | None,
        typer.Option("--open", help="Allow an address that other machines can reach; anyone there can use it."),
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            callback=_print_config,
            is_eager=True,
            help="Print a settings file with every setting, its meaning and its default, and exit.",
        ),
    ] = False,
) -> None:
    """Serve models to boto3, the AWS command line, openai and anything else that speaks these protocols.

    Settings come from the file, are overridden by the environment (KILONOVA_SERVER_PORT=9000), and by these options.

    Example: kilonova serve --port 8080 --model mine=runs/mine/model

    Adapters are models to every client: kilonova serve --adapter polite=micro:runs/polite/model
    """
    settings = _read_settings(
        config,
        data,
        {
            "server": {
                "host": host,
                "port": port,
                "open": open_to_network,
                "database": database,
                "tls": tls,
                "tls_certificate": None if tls_certificate is None else str(tls_certificate),
                "tls_key": None if tls_key is None else str(tls_key),
            },
            "models": _parse_names("--model", "NAME=DIR", model or []),
            "adapters": _parse_adapters(adapter or []),
            "drafts": _parse_names("--draft", "NAME=DIR", draft or []),
            "engine": {
                "max_num_seqs": max_num_seqs,
                "max_context": max_context,
                "kv_cache_bytes": kv_cache_bytes,
                "max_loras": max_loras,
                "max_lora_rank": max_lora_rank,
                "quantization": quantization,
                "speculate": speculate,
            },
            "telemetry": {"log_format": log_format},
        },
    )
    from kilonova.serve.run import open_registry
    from kilonova.serve.run import serve as run_server

    # Read here as well, so that a mistyped model is known before anything heavy is loaded.
    registry = open_registry(settings)
    names = list(dict.fromkeys((*settings.models, *(entry.name for entry in registry.entries()))))
    if not names:
        raise ConfigError("there is no model to serve; name a checkpoint with --model NAME=DIR")
    entries = [registry.get(name) for name in names]

    at = settings.server
    try:
        run_server(settings, on_ready=lambda running: print_banner(running, at.host, entries))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        message = f"cannot listen on {at.host} port {at.port}: {error.strerror}; see --host and --port"
        raise KilonovaError(message) from error


def _read_settings(config: Path | None, data: Path | None, given: dict[str, dict[str, Any]]) -> Settings:
    """The settings of `--config`, or else of `kilonova.toml` in the data directory, and what is `given` over them."""
    from kilonova.models.registry import models_home
    from kilonova.serve.settings import FILE_NAME, load_settings

    if data is not None:
        given["server"]["data"] = str(data)
    if config is None:
        default = (data or Path(os.environ.get("KILONOVA_SERVER_DATA") or models_home().parent)) / FILE_NAME
        config = default if default.exists() else None
    return load_settings(config, given)


def client_lines(running: Running, model: str, bedrock_id: str) -> dict[str, str]:
    """Shell commands that ask a model a question with boto3, openai and curl, each complete in itself.

    Where a key is needed they take it from the environment, as these clients do.
    """
    url, trust = running.url, running.authority
    python = shlex.quote(_python())
    boto3_key, openai_key, curl_key = "", "", ' -H "authorization: Bearer $OPENAI_API_KEY"'
    if not running.needs_key:
        boto3_key = ', aws_access_key_id="local", aws_secret_access_key="local"'
        openai_key, curl_key = ', api_key="local"', ""
    boto3_code = (
        f'import boto3; print(boto3.client("bedrock-runtime", endpoint_url="{url}", region_name="us-east-1"'
        f'{boto3_key}).converse(modelId="{bedrock_id}", '
        f'messages=[{{"role": "user", "content": [{{"text": "{QUESTION}"}}]}}])["output"]["message"])'
    )
    openai_code = (
        f'import openai; print(openai.OpenAI(base_url="{url}/v1"{openai_key}).chat.completions.create('
        f'model="{model}", messages=[{{"role": "user", "content": "{QUESTION}"}}]).choices[0].message.content)'
    )
    body = shlex.quote(json.dumps({"model": model, "messages": [{"role": "user", "content": QUESTION}]}))
    trusted = {
        name: f"{name}={shlex.quote(str(trust))} " if trust else "" for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE")
    }
    cacert = f" --cacert {shlex.quote(str(trust))}" if trust else ""
    return {
        "boto3": f"{trusted['AWS_CA_BUNDLE']}{python} -c {shlex.quote(boto3_code)}",
        "openai": f"{trusted['SSL_CERT_FILE']}{python} -c {shlex.quote(openai_code)}",
        "curl": f"curl -s{cacert} {url}/v1/chat/completions{curl_key} -H 'content-type: application/json' -d {body}",
    }


def picture_line(running: Running, model: str) -> str:
    """A shell command that has a model draw a picture into `picture.png` with openai, as `client_lines`."""
    key = "" if running.needs_key else ', api_key="local"'
    code = (
        f'import base64, openai; open("picture.png", "wb").write(base64.b64decode(openai.OpenAI('
        f'base_url="{running.url}/v1"{key}).images.generate(model="{model}", prompt="a red apple", size="512x512", '
        f'response_format="b64_json").data[0].b64_json))'
    )
    trusted = f"SSL_CERT_FILE={shlex.quote(str(running.authority))} " if running.authority else ""
    return f"{trusted}{shlex.quote(_python())} -c {shlex.quote(code)}"


def print_banner(running: Running, host: str, entries: Sequence[ModelEntry]) -> None:
    """Say where the server is, what it serves, who can use it, and how to ask it something."""
    from rich.console import Console

    from kilonova.serve.origins import is_loopback

    console = Console(highlight=False)
    parts = urlsplit(running.url)
    address = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host)
    if address is not None:
        running = dataclasses.replace(running, url=f"{parts.scheme}://{address}:{parts.port}")
    console.print(f"\n[bold]Kilonova[/] is ready at [bold cyan]{running.url}[/]")
    console.print("console: open this address in a browser")
    console.print(f"models: {', '.join(entry.name for entry in entries)}")
    if running.needs_key:
        console.print("a key is needed; `kilonova keys create` makes one")
    elif is_loopback(host):
        console.print("open: no key is asked for, and only this machine can reach it")
    else:
        console.print("[bold yellow]open: no key is asked for, and anyone who can reach this machine can use it[/]")
    text = next((entry for entry in entries if not entry.makes_pictures), None)
    painter = next((entry for entry in entries if entry.makes_pictures), None)
    lines = {} if text is None else client_lines(running, text.name, text.bedrock_id)
    if painter is not None:
        lines["openai, for a picture"] = picture_line(running, painter.name)
    for client, line in lines.items():
        package = client.partition(",")[0]
        missing = package != "curl" and find_spec(package) is None
        console.print(f"\n[dim]{client}{f' (pip install {package} first)' if missing else ''}[/]")
        console.print(line, soft_wrap=True, markup=False)
    console.print("\n[dim]Ctrl-C stops it.[/]")


def _python() -> str:
    """The Python to type in a shell here: this one, relative to the working directory where it is below it."""
    executable = Path(sys.executable)
    try:
        return str(executable.relative_to(Path.cwd()))
    except ValueError:
        return str(executable)


def _parse_adapters(items: Sequence[str]) -> dict[str, str]:
    """Names to BASE:DIR; a base, such as a Bedrock model id, may hold colons."""
    adapters = _parse_names("--adapter", "NAME=BASE:DIR", items)
    for name, value in adapters.items():
        base, _, directory = value.rpartition(":")
        if not base or not directory:
            raise ConfigError(f"--adapter {name}={value}: NAME=BASE:DIR is expected, where BASE is a model's name")
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
