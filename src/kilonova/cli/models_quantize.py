"""`kilonova models quantize` and `compare`: smaller weights, and what they cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kilonova.core.errors import InvalidRequest

if TYPE_CHECKING:
    from kilonova.evals.comparison import Comparison

DEFAULT_GROUP_SIZE = 64

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Calibration = Annotated[
    str,
    typer.Option(
        help="Text to calibrate on: .txt, or .jsonl(.zst) with text or messages; default: Python's own documentation."
    ),
]
Sequences = Annotated[int, typer.Option(min=1, help="Most sequences of calibration text to read.")]
SequenceLength = Annotated[int, typer.Option(min=8, help="Tokens in each of them.")]
Text = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, help="Text for bits per byte; held-out documentation of Python unless given."
    ),
]
Data = Annotated[
    Path | None, typer.Option(exists=True, file_okay=False, help="Folder that holds eval/: measure tasks as well.")
]
Task = Annotated[list[str] | None, typer.Option(help="Task or group of `kilonova eval`; repeat for more.")]
Limit = Annotated[int, typer.Option(min=1, help="Most examples a task takes.")]


def quantize(
    model: Annotated[str, typer.Argument(help="A model's name or the directory of a checkpoint.")],
    output: Annotated[Path, typer.Argument(help="Where to write it; must be new or empty.")],
    bits: Annotated[str, typer.Option(help="8 and 4: integers; fp8: e4m3.")] = "8",
    method: Annotated[str, typer.Option(help="rtn: round to nearest; gptq: with calibration text.")] = "rtn",
    group_size: Annotated[
        int | None, typer.Option(help="Inputs that share a scale, with 4 bits: 32, 64 or 128 [default: 64].")
    ] = None,
    calibration: Calibration = "default",
    sequences: Sequences = 128,
    sequence_length: SequenceLength = 512,
    activation_order: Annotated[
        bool, typer.Option(help="gptq: round the inputs with the largest values first.")
    ] = True,
    report: Annotated[bool, typer.Option(help="Measure the model before and after.")] = True,
    text: Text = None,
    data: Data = None,
    task: Task = None,
    limit: Limit = 300,
    as_json: Json = False,
) -> None:
    """Write a model with weights of 8 or 4 bits, as transformers and vLLM open it, and measure what that costs.

    Example: kilonova models quantize micro micro-int4 --bits 4 --method gptq
    """
    from kilonova.cli.models import find_directory
    from kilonova.models.quantization.quantize import QuantizationConfig, quantize_directory, unquantized_part

    number_format = {"8": "int8", "4": "int4", "fp8": "fp8"}.get(bits)
    if number_format is None:
        raise InvalidRequest(f"--bits: {bits!r} is not one of 8, 4, fp8", field="bits")
    if group_size is None and number_format == "int4":
        group_size = DEFAULT_GROUP_SIZE
    source = find_directory(model)
    config = QuantizationConfig(
        number_format=number_format,  # type: ignore[arg-type]
        method=method,  # type: ignore[arg-type]
        group_size=group_size,
        activation_order=activation_order,
    )
    decoder = quantize_directory(
        source, output, config, calibration=calibration_file(calibration), sequences=sequences, length=sequence_length
    )
    if kept := unquantized_part(decoder):
        typer.secho(kept, fg=typer.colors.YELLOW, err=True)
    if report:
        from kilonova.evals.comparison import compare as measure

        tasks = tuple(task or ("classification",))
        print_comparison(measure(source, output, text=text, data_root=data, tasks=tasks, limit=limit), as_json)
    else:
        print(json.dumps({"directory": str(output)}) if as_json else output)


def compare(
    before: Annotated[str, typer.Argument(help="A model's name or the directory of a checkpoint.")],
    after: Annotated[str, typer.Argument(help="Another, such as one made from it.")],
    text: Text = None,
    data: Data = None,
    task: Task = None,
    limit: Limit = 300,
    as_json: Json = False,
) -> None:
    """Size and quality of two models side by side: bits per byte, and with --data the accuracy in tasks.

    Example: kilonova models compare micro micro-int4 --data datasets/
    """
    from kilonova.cli.models import find_directory
    from kilonova.evals.comparison import compare as measure

    tasks = tuple(task or ("classification",))
    found = measure(find_directory(before), find_directory(after), text=text, data_root=data, tasks=tasks, limit=limit)
    print_comparison(found, as_json)


def calibration_file(calibration: str) -> Path | None:
    """The file that `--calibration` names, None for the default text."""
    if calibration == "default":
        return None
    if not Path(calibration).is_file():
        raise InvalidRequest(f"--calibration: no file {calibration}; give one, or default", field="calibration")
    return Path(calibration)


def print_comparison(found: Comparison, as_json: bool) -> None:
    """Print the comparison as a table or as one JSON object."""
    if as_json:
        print(json.dumps(found.to_dict()))
        return

    from rich.console import Console

    Console().print(found.table())
