"""The `kilonova` command: finds the verb that was asked for, and turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

import kilonova
from kilonova.core.errors import ConfigError, InvalidRequest, KilonovaError, ModelNotFound

VERBS = (
    "serve",
    "chat",
    "image",
    "train",
    "tokenizer",
    "models",
    "keys",
    "usage",
    "eval",
    "preference",
    "data",
    "bench",
    "doctor",
)
USAGE_ERRORS = (ConfigError, InvalidRequest, ModelNotFound)


class _Verbs(Mapping[str, Any]):
    """The commands by name; looking one up imports `kilonova.cli.<name>`, listing the names imports nothing."""

    def __getitem__(self, name: str) -> Any:
        if name not in VERBS:
            raise KeyError(name)
        command = typer.main.get_command(importlib.import_module(f"kilonova.cli.{name}").app)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(VERBS)

    def __len__(self) -> int:
        return len(VERBS)


class _VerbGroup(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast(MutableMapping[str, Any], _Verbs())

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)


app = typer.Typer(cls=_VerbGroup, no_args_is_help=True, add_completion=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kilonova {kilonova.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A family of foundation models to train, customise, guard, measure and serve on your own machines."""


def main() -> None:
    """Run the command line: exit code 0 for success, 1 for a failure, 2 for wrong usage or configuration.

    An error raised on purpose prints one line on standard error; `KILONOVA_DEBUG=1` shows its traceback instead.
    """
    try:
        app()
    except (KilonovaError, OSError) as error:
        if os.environ.get("KILONOVA_DEBUG") == "1":
            raise
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2 if isinstance(error, USAGE_ERRORS) else 1)
