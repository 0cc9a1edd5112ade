"""`kilonova eval canvas`: measure a model that makes pictures, or show all that it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kilonova.core.errors import InvalidRequest
from kilonova.core.files import write_atomic


def canvas(
    model: Annotated[str, typer.Argument(help="The folder of a model that makes pictures, or the name of one.")],
    data: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder that holds image/emoji_captions.parquet.")
    ] = None,
    classifier: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="What `kilonova train canvas/classifier` left.")
    ] = None,
    segmenter: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Looks at pictures in place of the model's own.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Measure this part only, as tifa-world; repeat for more.")] = (
        None
    ),
    limit: Annotated[int, typer.Option(min=2, help="Most pictures that a part draws.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Decides what is asked for, and the noise.")] = 0,
    size: Annotated[int | None, typer.Option(min=32, max=1024, help="Side of pictures; the model's own.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps; the model's own unless given.")] = None,
    cfg_scale: Annotated[float, typer.Option(min=1.0, help="Scale of guidance.")] = 6.5,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures and a sheet of each part.")] = None,
    output: Annotated[Path | None, typer.Option(help="File for the report as JSON.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Measure nothing; draw every task onto this .png file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Measure what a model draws: faithfulness to words, style, colours, edges, regions, edits, and its autoencoder.

    Parts that need a classifier, pictures of files or a segmenter are left out without them, and the report says so.

    Example: kilonova eval canvas runs/canvas/flow/model --classifier runs/canvas/classifier/model --data data/
    """
    from kilonova.cli.image import find_folder

    if sheet is not None:
        _draw_sheet(find_folder(model), sheet, size, seed, steps, cfg_scale, device)
        print(sheet)
        return

    from kilonova.evals.canvas.run import evaluate

    report = evaluate(
        find_folder(model),
        data=data,
        classifier=classifier,
        segmenter=segmenter,
        only=tuple(only or ()),
        limit=limit,
        seed=seed,
        size=size,
        cfg_scale=cfg_scale,
        num_inference_steps=steps,
        device=device,
        output=out,
    )
    if output is not None:
        write_atomic(output, report.to_json() + "\n")
    if as_json:
        print(report.to_json())
        return

    from rich.console import Console

    Console().print(report.table())


def _draw_sheet(
    directory: Path, path: Path, size: int | None, seed: int, steps: int | None, cfg_scale: float, device: str
) -> None:
    if path.suffix != ".png":
        raise InvalidRequest(f"sheet: {path} is no .png file", field="sheet")

    from kilonova.core.device import choose_device
    from kilonova.evals.canvas.gallery import save_png
    from kilonova.evals.canvas.tour import Tour
    from kilonova.studio.loading import load_canvas

    canvas = load_canvas(directory, choose_device(device))
    tour = Tour(canvas, size or 192, seed, cfg_scale, steps)
    save_png(tour.sheet(), path)
