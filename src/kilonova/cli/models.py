"""`kilonova models`: the models on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kilonova.cli.models_prune import prune
from kilonova.cli.models_quantize import compare, quantize
from kilonova.core.errors import InvalidRequest

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry

app = typer.Typer(no_args_is_help=True)
app.command(no_args_is_help=True)(quantize)
app.command(no_args_is_help=True)(prune)
app.command(no_args_is_help=True)(compare)


@app.callback()
def models() -> None:
    """List the models on this machine, bring others in, take them out, and make smaller ones of them.

    Example: kilonova models list
    """


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array instead of a table.")] = False,
) -> None:
    """List the shipped and the imported models.

    Example: kilonova models list --json
    """
    from kilonova.models.registry import Registry

    registry = Registry()
    if as_json:
        print(json.dumps([_describe(entry) for entry in registry.entries()], indent=2))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("name", "also known as", "takes", "makes", "context", "size", "directory")
    for entry in registry.entries():
        row = _describe(entry)
        table.add_row(
            entry.name,
            f"adapter of {entry.base}" if entry.base else "\n".join(entry.aliases),
            ", ".join(entry.input_modalities),
            ", ".join(entry.output_modalities),
            str(entry.context_length or ""),
            f"{row['bytes'] / 2**20:.0f} MiB",
            str(entry.directory),
        )
    Console().print(table)
    for name, reason in registry.unusable.items():
        typer.secho(f"{name} cannot be used: {reason}", fg=typer.colors.YELLOW, err=True)


@app.command("import")
def import_(
    directory: Annotated[
        Path, typer.Argument(help="A Hugging Face checkpoint, PEFT adapter (LoRA) or diffusers folder.")
    ],
    name: Annotated[str | None, typer.Option(help="Name to know it by; the directory's unless given.")] = None,
    link: Annotated[bool, typer.Option("--link", help="Refer to the files where they are; do not copy them.")] = False,
    base: Annotated[
        str, typer.Option(help="Name of the model that an adapter belongs to, where the adapter does not tell.")
    ] = "",
) -> None:
    """Make a checkpoint, or an adapter of a known model, known by a name to every later run, after checking it.

    Example: kilonova models import runs/mine/model --name mine
    """
    from kilonova.models.library import import_model

    entry = import_model(name or directory.resolve().name, directory, link=link, base=base)
    print(f"{entry.name}: {entry.directory}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A model's name or the directory of a checkpoint.")],
    directory: Annotated[Path, typer.Argument(help="Where to write it; must be new or empty.")],
) -> None:
    """Write a model as a Hugging Face directory, for transformers, vLLM or another machine.

    Example: kilonova models export mine mine-checkpoint/
    """
    from kilonova.models.library import export_model
    from kilonova.models.registry import ModelEntry

    export_model(ModelEntry.from_directory(find_directory(model)), directory)
    print(directory)


@app.command()
def merge(
    base: Annotated[str, typer.Argument(help="The adapted model: its name or directory.")],
    adapter: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A PEFT directory (LoRA or DoRA).")],
    output: Annotated[Path, typer.Option(help="Where to write the whole model; must be new or empty.")],
) -> None:
    """Fold an adapter into the model it was trained on.

    Example: kilonova models merge micro runs/micro/lora/model --output micro-mine
    """
    from kilonova.models.adapter import merge_directories

    merge_directories(find_directory(base), adapter, output)
    print(output)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Name of an imported model.")]) -> None:
    """Forget an imported model; its files are deleted if they were copied, left alone if linked.

    Example: kilonova models remove mine
    """
    from kilonova.models.library import remove_model

    remove_model(name)
    print(f"{name}: removed")


@app.command()
def card(
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The model's directory.")],
    name: Annotated[str, typer.Option(help="The title of the card.")],
    evaluation: Annotated[Path | None, typer.Option(help="A report of `kilonova eval --output`.")] = None,
    data_report: Annotated[Path | None, typer.Option(help="A report of `kilonova data instruct --report`.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, as an SPDX identifier.")] = "apache-2.0",
) -> None:
    """Write a model's card, README.md, from the records of its training and evaluation and from sampled answers.

    Example: kilonova models card runs/micro/sft/model --name "Kilonova Micro" --evaluation evals.json
    """
    from kilonova.evals.card import SAMPLE_PROMPTS, read_record, write_card
    from kilonova.evals.run import sample_answers

    path = write_card(
        directory,
        name,
        evaluation=None if evaluation is None else read_record(evaluation),
        samples=sample_answers(directory, SAMPLE_PROMPTS),
        data_report=None if data_report is None else read_record(data_report),
        licence=licence,
    )
    print(path)


def find_directory(model: str) -> Path:
    """The checkpoint directory of `model`: a directory that holds one, or else a model's name."""
    from kilonova.models.registry import Registry

    if (Path(model) / "config.json").is_file():
        return Path(model)
    if (Path(model) / "adapter_config.json").is_file():
        raise InvalidRequest(f"{model} is an adapter: `kilonova models merge BASE {model} --output DIR` makes a model")
    entry = Registry().get(model)
    if entry.base:
        merge_line = f"kilonova models merge {entry.base} {entry.directory} --output DIR"
        raise InvalidRequest(f"{model} is an adapter of {entry.base}: `{merge_line}` makes a model")
    return entry.directory


def _describe(entry: ModelEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "aliases": list(entry.aliases),
        "base": entry.base or None,
        "display_name": entry.display_name,
        "provider": entry.provider,
        "description": entry.description,
        "input_modalities": list(entry.input_modalities),
        "output_modalities": list(entry.output_modalities),
        "context_length": entry.context_length,
        "max_output_tokens": entry.max_output_tokens,
        "created": entry.created.isoformat(),
        "bytes": sum(file.stat().st_size for file in entry.directory.rglob("*") if file.is_file()),
        "directory": str(entry.directory),
    }
