"""`kilonova data`: make, clean and measure training data."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kilonova.cli.data_world import world
from kilonova.cli.extras import require_packages
from kilonova.core.errors import ConfigError
from kilonova.core.files import write_atomic

if TYPE_CHECKING:
    from kilonova.data.statistics import DataStatistics

app = typer.Typer(no_args_is_help=True)

EXTRA_PACKAGES = ("matplotlib", "py3langid", "rensa")


class RowFormat(StrEnum):
    """What the rows of a file are."""

    text = "text"
    chat = "chat"
    preference = "preference"


@app.callback()
def data() -> None:
    """Make, clean and measure training data.

    Example: kilonova data stats --recipe micro/pretrain data.root=datasets --output statistics/
    """


@app.command()
def instruct(
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder that holds sft/ and text/.")],
    output: Annotated[Path, typer.Option(help="JSON lines file to write the conversations to.")],
    held_out: Annotated[Path | None, typer.Option(help="File for a held-out 1 % of the prompts.")] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds write equal files.")] = 0,
    report: Annotated[Path | None, typer.Option(help="File for the report as JSON, for the model card.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most conversations from one source.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Use this source only; repeat for more.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Turn public labelled data into conversations for supervised fine-tuning.

    Example: kilonova data instruct datasets/ --output instruct.jsonl
    """
    from kilonova.data.instruct import build

    built = build(directory, output, seed, held_out_path=held_out, limit=limit, only=tuple(source or ()))
    if report is not None:
        write_atomic(report, json.dumps(built.to_dict(), indent=1, ensure_ascii=False) + "\n")
    if as_json:
        print(json.dumps(built.to_dict(), ensure_ascii=False))
        return

    from rich.console import Console

    Console().print(built.table())


@app.command(no_args_is_help=True)
def preferences(
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of sft/, text/ and pref/.")],
    output: Annotated[Path, typer.Option(help="JSON lines file to write the pairs to.")],
    held_out: Annotated[Path | None, typer.Option(help="File for the pairs of a held-out 5 % of the prompts.")] = None,
    human: Annotated[
        Path | None, typer.Option(help="File for human choices that are for evaluation only (reads eval/ too).")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Also set this model's own mistakes against right answers.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many pairs programs make.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Equal seeds write equal files.")] = 0,
    report: Annotated[Path | None, typer.Option(help="File for the report as JSON, for the model card.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Make this kind only; repeat for more.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Turn prompts into preference pairs: right answers against spoilt ones, with lengths that give nothing away.

    Example: kilonova data preferences datasets/ --output preferences.jsonl --held-out preferences_val.jsonl
    """
    from kilonova.data.preference_pairs import build

    answer = None
    if model is not None:
        from kilonova.cli.models import find_directory
        from kilonova.evals.preference import GreedyAnswers

        answer = GreedyAnswers(find_directory(model), max_tokens=64)
    built = build(
        directory,
        output,
        seed,
        held_out_path=held_out,
        human_path=human,
        count=count,
        answer=answer,
        only=tuple(kind or ()),
    )
    if report is not None:
        write_atomic(report, json.dumps(built.to_dict(), indent=1, ensure_ascii=False) + "\n")
    if as_json:
        print(json.dumps(built.to_dict(), ensure_ascii=False))
        return

    from rich.console import Console

    Console().print(built.table())


@app.command()
def verifiable(
    output: Annotated[Path, typer.Option(help="JSON lines file to write the tasks to.")],
    count: Annotated[int, typer.Option(min=1, help="How many tasks.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Equal seeds write equal files.")] = 0,
    task: Annotated[list[str] | None, typer.Option(help="Make this kind of task only; repeat for more.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Write small tasks with verifiers, for reinforcement learning: arithmetic, counting, sorting, copying, ...

    Example: kilonova data verifiable --output verifiable.jsonl --count 20000
    """
    from kilonova.data.verifiable import write_verifiable

    counts = write_verifiable(output, count, seed, tuple(task or ()))
    if as_json:
        print(json.dumps({"rows": count, "tasks": counts}))
        return
    print(f"{output}: {count} tasks ({', '.join(f'{name} {rows}' for name, rows in counts.items())})")


@app.command(no_args_is_help=True)
def clean(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", exists=True, dir_okay=False, help=".jsonl, .jsonl.zst or .txt.")
    ],
    output: Annotated[Path, typer.Option(help="New folder for what is kept, in files of the inputs' names.")],
    row_format: Annotated[RowFormat | None, typer.Option("--format", help="What a row is; text unless given.")] = None,
    template: Annotated[
        str | None, typer.Option(help="A row's text, its fields in braces; {text} unless given.")
    ] = None,
    language: Annotated[list[str] | None, typer.Option(help="Keep this language (ISO 639); repeat for more.")] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="Evaluation file no text may contain; repeat for more."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="YAML file with the thresholds (docs/data.md).")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="File for the report as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Drop duplicates, poor text, other languages and evaluation texts from training files, and say what and why.

    Example: kilonova data clean books.jsonl.zst web.jsonl --against eval/mmlu.jsonl --language en --output clean/
    """
    require_packages(EXTRA_PACKAGES, "data")

    from kilonova.core.config import load_config
    from kilonova.data.clean import CleanConfig
    from kilonova.data.clean import clean as clean_files

    chosen = load_config(CleanConfig, config) if config is not None else CleanConfig()
    if row_format is not None:
        chosen = replace(chosen, format=row_format.value)
    if template is not None:
        chosen = replace(chosen, template=template)
    if language:
        chosen = replace(chosen, languages=tuple(language))
    found = clean_files(inputs, output, chosen, against or ())
    if report is not None:
        write_atomic(report, json.dumps(found.to_dict(), indent=1, ensure_ascii=False) + "\n")
    if as_json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
        return

    from rich.console import Console

    for table in found.tables():
        Console().print(table)


@app.command(no_args_is_help=True)
def stats(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]... | [KEY=VALUE]...", help="Files, or overrides of a recipe.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Measure the sources of this recipe, packed as it says.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Tokenizer to count the tokens of FILEs with.")
    ] = None,
    template: Annotated[str, typer.Option(help="The text of a row of a FILE, its fields in braces.")] = "{text}",
    output: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for statistics.png and .json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Say how large training data is, how long, in which languages, how much is double, and what training sees of it.

    Example: kilonova data stats --recipe micro/pretrain data.root=datasets --output statistics/

    Example: kilonova data stats books.jsonl.zst web.jsonl --tokenizer runs/micro/tokenizer --output statistics/
    """
    require_packages(EXTRA_PACKAGES, "data")
    if recipe is not None:
        statistics, title = _recipe_statistics(recipe, arguments or []), recipe
    else:
        files = [Path(argument) for argument in arguments or ()]
        missing = next((file for file in files if not file.is_file()), None)
        if missing is not None:
            raise ConfigError(f"no file {missing} (overrides such as key=value go with --recipe)")
        if not files:
            raise ConfigError("name files, or a recipe with --recipe")
        statistics, title = _file_statistics(files, template, tokenizer), ", ".join(file.name for file in files)
    if output is not None:
        from kilonova.data.statistics_plot import draw_statistics

        write_atomic(output / "statistics.json", json.dumps(statistics.to_dict(), indent=1, ensure_ascii=False) + "\n")
        write_atomic(output / "statistics.png", draw_statistics(statistics, title))
    if as_json:
        print(json.dumps(statistics.to_dict(), ensure_ascii=False))
        return

    from rich.console import Console

    for table in statistics.tables():
        Console().print(table)
    if output is not None:
        Console().print(f"{output / 'statistics.png'} shows it.")


def _recipe_statistics(name: str, overrides: list[str]) -> DataStatistics:
    from kilonova.core.config import load_config
    from kilonova.data.mixture import build_rows
    from kilonova.data.statistics import measure
    from kilonova.data.tokens import tokenize_source, tokenizer_fingerprint
    from kilonova.recipes import find_recipe
    from kilonova.text.tokenizer import Tokenizer
    from kilonova.train.recipe import TrainRecipe

    recipe = load_config(TrainRecipe, find_recipe(name), overrides)
    data = recipe.data
    directory = Path(recipe.model.tokenizer or recipe.model.init_from or "")
    tokenizer, fingerprint = Tokenizer.from_directory(directory), tokenizer_fingerprint(directory)
    tokenized = [tokenize_source(source, data.root, tokenizer, fingerprint, data.cache) for source in data.sources]
    whole_documents = recipe.objective != "pretrain"
    rows = build_rows(
        tokenized,
        [source.weight for source in data.sources],
        data.sequence_length,
        recipe.seed,
        whole_documents=whole_documents,
        temperature=data.temperature,
    )
    longest = data.sequence_length + 1 if whole_documents else None
    statistics = measure(data.sources, data.root, tokenized, data.temperature, longest)
    return replace(statistics, sequence_length=data.sequence_length, packing=rows.waste)


def _file_statistics(files: list[Path], template: str, tokenizer_directory: Path | None) -> DataStatistics:
    from kilonova.data.sources import Source
    from kilonova.data.statistics import measure
    from kilonova.data.tokens import tokenize_source
    from kilonova.text.tokenizer import Tokenizer

    sources = [Source(file.name, str(file.resolve()), template) for file in files]
    if tokenizer_directory is None:
        return measure(sources, "/")
    tokenizer = Tokenizer.from_directory(tokenizer_directory)
    with tempfile.TemporaryDirectory() as cache:
        tokenized = [tokenize_source(source, "/", tokenizer, "", cache) for source in sources]
        return measure(sources, "/", tokenized)


@app.command()
def distil(
    prompts: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON lines of `prompt` or `messages`.")],
    model: Annotated[str, typer.Option(help="The teacher's name at its endpoint.")],
    output: Annotated[Path, typer.Option(help="JSON lines file that conversations are appended to.")],
    endpoint: Annotated[str | None, typer.Option(help="URL, with /v1 for openai; bedrock: AWS unless given.")] = None,
    protocol: Annotated[Literal["openai", "bedrock"], typer.Option(help="What the endpoint speaks.")] = "openai",
    concurrency: Annotated[int, typer.Option(min=1, help="Prompts under way at a time.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer; longer ones are dropped.")] = 1024,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")] = 0.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many prompts.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Have a teacher model, served anywhere, answer prompts: conversations for supervised fine-tuning.

    Run it again to go on: prompts that the output answers are not asked again. Keys come from the environment
    (OPENAI_API_KEY, or AWS's own). Exit code 1 if an answer is missing.

    Example: kilonova data distil prompts.jsonl --endpoint http://127.0.0.1:8080/v1 --model micro --output sft.jsonl
    """
    from kilonova.data.distil import bedrock_teacher, openai_teacher
    from kilonova.data.distil import distil as ask

    if protocol == "bedrock":
        teacher = bedrock_teacher(
            endpoint, model, max_tokens=max_tokens, temperature=temperature, concurrency=concurrency
        )
    elif endpoint is None:
        raise ConfigError("--endpoint: the openai protocol needs the URL of a server, such as http://127.0.0.1:8080/v1")
    else:
        teacher = openai_teacher(endpoint, model, max_tokens=max_tokens, temperature=temperature)
    report = ask(prompts, output, teacher, name=model, concurrency=concurrency, limit=limit)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        print(f"{output}: {report.written} answers written, {report.present} there before")
        if report.truncated:
            print(f"{report.truncated} were cut off at {max_tokens} tokens and left out: raise --max-tokens")
        if report.refused:
            print(f"{report.refused} were refused; the last: {report.last_refusal}")
    if report.truncated or report.refused:
        raise typer.Exit(1)


app.command(no_args_is_help=True)(world)
