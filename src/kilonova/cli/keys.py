"""`kilonova keys`: who may use the server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kilonova.cli.server_data import default_data, open_database
from kilonova.core.errors import InvalidRequest

if TYPE_CHECKING:
    from kilonova.serve.keys.store import Key, KeyStore, Secrets

app = typer.Typer(no_args_is_help=True)

DataOption = Annotated[
    Path | None, typer.Option("--data", help="The server's data directory: its database and its master key.")
]
DatabaseOption = Annotated[
    str | None, typer.Option("--database", metavar="URL", help="Database; else kilonova.db in the data directory.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def keys() -> None:
    """Make keys for the server, list them and revoke them; a running server notices within about a second.

    Example: kilonova keys create web --model micro --expires 90d
    """


@app.command(no_args_is_help=True)
def create(
    name: Annotated[str, typer.Argument(help="Whose it is; usage is reported under this name.")],
    model: Annotated[
        list[str] | None, typer.Option(help="Allow this model only; repeat for more. Otherwise all.")
    ] = None,
    operation: Annotated[
        list[str] | None,
        typer.Option(
            help="Allow this operation only, such as Converse or chat.completions, or a group of them: bedrock, "
            "openai, usage; repeat for more. Otherwise all."
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it stops working: 30m, 12h, 90d, or a date and time such as 2027-01-31.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Most requests in any minute.")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Most tokens, in and out, in any minute.")
    ] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=1, help="Most tokens, in and out, in a day (UTC).")] = None,
    budget_usd: Annotated[
        str | None, typer.Option(metavar="DOLLARS", help="Most money it may cost, such as 20 or 0.50.")
    ] = None,
    budget_period: Annotated[
        Literal["day", "month", "total"], typer.Option(help="What the budget is for; days and months begin in UTC.")
    ] = "month",
    context_strategy: Annotated[
        Literal["none", "truncate_oldest", "sliding_window", "summarize"],
        typer.Option(
            help="What becomes of conversations that do not fit, where a request does not say; none: an error."
        ),
    ] = "none",
    url: Annotated[str, typer.Option(help="The server's address, for the lines to paste.")] = "http://127.0.0.1:8080",
    data: DataOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key, and print its secrets once, with the lines that let boto3, openai and curl use it.

    Example: kilonova keys create web --model micro --requests-per-minute 60 --budget-usd 20 --expires 90d
    """
    from kilonova.serve.call import KeyLimits
    from kilonova.serve.keys.description import check_name, describe, describe_secrets, parse_budget
    from kilonova.serve.keys.master import FILE_NAME, MasterKey
    from kilonova.serve.keys.operations import expand

    name = check_name(name)
    limits = KeyLimits(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        tokens_per_day=tokens_per_day,
        budget_usd=None if budget_usd is None else parse_budget(budget_usd),
        budget_period=budget_period,
    )
    if not re.match(r"https?://[^/\s]", url):
        raise InvalidRequest(f"--url {url}: an address such as http://127.0.0.1:8080 is expected")
    expires_at = None if expires is None else _parse_expiry(expires, datetime.now(UTC))
    operations = expand(operation) if operation else None
    data = data or default_data()
    models = _registry_names(model, data) if model else None
    with _open_store(data, database) as store:
        key, secrets = store.create(
            MasterKey.open(data / FILE_NAME),
            name,
            models=models,
            operations=operations,
            limits=limits,
            context_strategy=None if context_strategy == "none" else context_strategy,
            expires_at=expires_at,
        )
    if as_json:
        print(json.dumps({**describe(key, datetime.now(UTC)), **describe_secrets(secrets)}, indent=2))
    else:
        _print_new_key(key, secrets, url.rstrip("/"))


@app.command("list")
def list_keys(data: DataOption = None, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List every key, also the revoked ones; their secrets are not kept.

    Example: kilonova keys list
    """
    with _open_store(data or default_data(), database) as store:
        known = store.list()
    if as_json:
        from kilonova.serve.keys.description import describe

        print(json.dumps([describe(key, datetime.now(UTC)) for key in known], indent=2))
        return

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("key", "state", "may use", "times (UTC)")
    for key in known:
        state = key.state(datetime.now(UTC))
        times = {"made": key.created_at, "expires": key.expires_at, "revoked": key.revoked_at, "used": key.last_used_at}
        table.add_row(
            f"{escape(key.name)}\n{key.id}",
            state,
            escape("\n".join(_allowance(key))),
            "\n".join(f"{what} {time:%Y-%m-%d %H:%M}" for what, time in times.items() if time is not None),
            style=None if state == "active" else "dim",
            end_section=True,
        )
    Console().print(table)


@app.command(no_args_is_help=True)
def revoke(
    name: Annotated[str, typer.Argument(help="Name or id of the key.")],
    data: DataOption = None,
    database: DatabaseOption = None,
) -> None:
    """Make a key useless, for good.

    Example: kilonova keys revoke web
    """
    with _open_store(data or default_data(), database) as store:
        key = store.revoke(name)
    print(f"{key.name} ({key.id}): revoked")


@contextmanager
def _open_store(data: Path, url: str | None) -> Iterator[KeyStore]:
    from kilonova.serve.keys.store import KeyStore

    with open_database(data, url) as database:
        yield KeyStore(database)


def _registry_names(names: Sequence[str], data: Path) -> list[str]:
    """The names by which the registry knows the models; one that it does not know is kept, and warned of."""
    from kilonova.core.errors import ModelNotFound
    from kilonova.models.registry import Registry

    registry = Registry(home=data / "models")
    known = []
    for name in names:
        try:
            known.append(registry.get(name).name)
        except ModelNotFound as error:
            typer.secho(
                f"warning: {error}; the key will open it if the server has it", fg=typer.colors.YELLOW, err=True
            )
            known.append(name)
    return known


def _parse_expiry(text: str, now: datetime) -> datetime:
    units = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
    duration = re.fullmatch(r"(\d{1,5})([mhd])", text)
    try:
        time = now + int(duration[1]) * units[duration[2]] if duration else datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"--expires {text}: minutes, hours or days such as 30m, 12h or 90d, or a date such as 2027-01-31, are "
            "expected"
        ) from None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    if time <= now:
        raise InvalidRequest(f"--expires {text}: this time is over")
    return time


def _print_new_key(key: Key, secrets: Secrets, url: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    from kilonova.serve.keys.description import describe_secrets

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(key.name)}[/] ({key.id}) may use the server. What follows is shown only now.\n")
    for what, secret in describe_secrets(secrets).items():
        console.print(f"{what.replace('_', ' '):<18} {secret}", markup=False)
    for title, line in _paste_lines(secrets, url).items():
        console.print(f"\n[dim]{title}[/]")
        console.print(line, markup=False)


def _paste_lines(secrets: Secrets, url: str) -> dict[str, str]:
    endpoint = f"AWS_ENDPOINT_URL_BEDROCK_RUNTIME={url} AWS_ENDPOINT_URL_BEDROCK={url}"
    endpoint += " AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1"
    access = f"AWS_ACCESS_KEY_ID={secrets.access_key_id} AWS_SECRET_ACCESS_KEY={secrets.secret_access_key}"
    lines = {"boto3, the AWS command line and SDKs": f"export {access} {endpoint}"}
    if url.startswith("https:"):
        bearer = f"export AWS_BEARER_TOKEN_BEDROCK={secrets.bedrock_key} {endpoint}"
        lines["the same with a bearer key, which they send over HTTPS only"] = bearer
    lines["openai"] = f"export OPENAI_API_KEY={secrets.openai_key} OPENAI_BASE_URL={url}/v1"
    lines["curl"] = f"curl -s {url}/v1/models -H 'authorization: Bearer {secrets.openai_key}'"
    return lines


def _allowance(key: Key) -> list[str]:
    from kilonova.serve.keys.operations import summarise

    limits, principal = key.limits, key.principal
    models = "any model" if principal.models is None else ", ".join(sorted(principal.models))
    operations = "every operation" if principal.operations is None else ", ".join(summarise(principal.operations))
    rates = {
        "requests a minute": limits.requests_per_minute,
        "tokens a minute": limits.tokens_per_minute,
        "tokens a day": limits.tokens_per_day,
    }
    lines = [models, operations, *(f"{value:,} {unit}" for unit, value in rates.items() if value is not None)]
    if limits.budget_usd is not None:
        lines.append(
            f"${limits.budget_usd:,} {'in all' if limits.budget_period == 'total' else f'a {limits.budget_period}'}"
        )
    if principal.context is not None:
        lines.append(f"contexts: {principal.context.strategy}")
    return lines
