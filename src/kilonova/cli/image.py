"""`kilonova image`: pictures from words, and changes to pictures, in the terminal."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kilonova.core.progress import ProgressReporter

app = typer.Typer()

_NEW, _EDIT, _WEAR, _HOW = "New pictures", "Changing a picture", "Trying on", "How"


class Quality(StrEnum):
    """How many steps are taken."""

    standard = "standard"
    premium = "premium"


@app.command()
def image(
    prompt: Annotated[str, typer.Argument(help="What to draw; without words a masked thing is removed.")] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="A .png, .jpg or .webp file.")] = Path("image.png"),
    model: Annotated[str, typer.Option(help="A model's name or folder.", rich_help_panel=_HOW)] = "canvas",
    width: Annotated[int, typer.Option(min=16, max=4096, help="In pixels.", rich_help_panel=_NEW)] = 512,
    height: Annotated[int, typer.Option(min=16, max=4096, help="In pixels.", rich_help_panel=_NEW)] = 512,
    negative: Annotated[str, typer.Option(help="What to stay away from.")] = "",
    style: Annotated[
        str | None, typer.Option(help="Such as design-sketch or photorealism.", rich_help_panel=_NEW)
    ] = None,
    control: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A picture whose edges to follow.", rich_help_panel=_NEW),
    ] = None,
    segmentation: Annotated[
        bool, typer.Option("--segmentation", help="--control shows regions, each of one color.", rich_help_panel=_NEW)
    ] = False,
    control_strength: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How far --control is followed.", rich_help_panel=_NEW)
    ] = 0.7,
    colors: Annotated[
        str | None, typer.Option(help='The palette, as in "#ff8800,#0044cc".', rich_help_panel=_NEW)
    ] = None,
    like: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="A picture to vary; up to 5 times.", rich_help_panel=_NEW),
    ] = None,
    similarity: Annotated[
        float, typer.Option(min=0.2, max=1.0, help="How close to stay to --like.", rich_help_panel=_NEW)
    ] = 0.7,
    picture: Annotated[
        Path | None,
        typer.Option("--image", exists=True, dir_okay=False, help="The picture to change.", rich_help_panel=_EDIT),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A picture of its size: black is made anew, white is kept.",
            rich_help_panel=_EDIT,
        ),
    ] = None,
    mask_prompt: Annotated[
        str | None,
        typer.Option(help="Words for what to replace, or with --outpaint to keep.", rich_help_panel=_EDIT),
    ] = None,
    outpaint: Annotated[bool, typer.Option("--outpaint", help="Draw new surroundings.", rich_help_panel=_EDIT)] = False,
    precise: Annotated[
        bool, typer.Option("--precise", help="--outpaint keeps every pixel of the rest.", rich_help_panel=_EDIT)
    ] = False,
    remove_background: Annotated[
        bool, typer.Option("--remove-background", help="Make it transparent.", rich_help_panel=_EDIT)
    ] = False,
    wear: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="A garment to put on the person of --image.", rich_help_panel=_WEAR
        ),
    ] = None,
    garment: Annotated[
        str | None, typer.Option(help="Its class, such as upper-body or boots.", rich_help_panel=_WEAR)
    ] = None,
    merge: Annotated[str, typer.Option(help="balanced, seamless or detailed.", rich_help_panel=_WEAR)] = "balanced",
    keep: Annotated[
        list[str] | None,
        typer.Option(help="face, hands or pose stays as it is; may be repeated.", rich_help_panel=_WEAR),
    ] = None,
    count: Annotated[int, typer.Option("--n", "-n", min=1, max=5, help="How many pictures.", rich_help_panel=_HOW)] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds draw equal pictures.", rich_help_panel=_HOW)] = 12,
    cfg_scale: Annotated[
        float, typer.Option(min=1.0, max=30.0, help="How strictly the words are followed.", rich_help_panel=_HOW)
    ] = 6.5,
    quality: Annotated[Quality, typer.Option(help="premium takes more steps.", rich_help_panel=_HOW)] = (
        Quality.standard
    ),
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Steps instead of those of --quality.", rich_help_panel=_HOW)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_HOW)] = "auto",
    preview: Annotated[
        bool, typer.Option("--preview/--no-preview", help="Show the pictures in the terminal.", rich_help_panel=_HOW)
    ] = True,
) -> None:
    """Draw pictures from words, or change the ones you have.

    Example: kilonova image "a red apple" -o apple.png --style design-sketch -n 3

    In given colors: kilonova image "a kite" --colors "#ff8800,#0044cc"

    After the edges of another: kilonova image "a castle" --control sketch.png --control-strength 0.9

    Like others: kilonova image "a fox" --like fox.png --similarity 0.8

    Replace a thing: kilonova image "a pear" --image table.png --mask-prompt "the apple"

    Remove it: kilonova image --image table.png --mask-prompt "the apple"

    New surroundings: kilonova image "a beach" --image dog.png --mask-prompt "the dog" --outpaint

    Cut it out: kilonova image --image dog.png --remove-background -o cut.png

    Try on: kilonova image --image person.png --wear jacket.png --garment upper-body

    The files written are printed; a PNG holds the words, the seed and all else that is needed to draw it again.
    """
    from kilonova.cli.image_output import check_format, numbered, write_picture
    from kilonova.cli.image_task import TaskOptions, build_task
    from kilonova.core.device import choose_device
    from kilonova.studio.loading import load_canvas
    from kilonova.studio.tasks import ImageRequest

    check_format(output, transparent=remove_background)
    task = build_task(
        TaskOptions(
            text=prompt,
            negative=negative,
            style=style,
            image=picture,
            mask=mask,
            mask_prompt=mask_prompt,
            outpaint=outpaint,
            precise=precise,
            remove_background=remove_background,
            colors=colors,
            like=like or [],
            similarity=similarity,
            control=control,
            segmentation=segmentation,
            control_strength=control_strength,
            wear=wear,
            garment=garment,
            merge=merge,
            keep=keep or [],
        )
    )
    request = ImageRequest(
        task=task,
        width=width,
        height=height,
        num_images=count,
        seed=seed,
        cfg_scale=cfg_scale,
        quality=quality.value,
        num_inference_steps=steps,
    )
    canvas = load_canvas(find_folder(model), choose_device(device))
    with _Progress() as progress:
        result = canvas.generate(request, progress.on_step)
    told = {
        "prompt": prompt,
        "negative_prompt": negative,
        "style": style or "",
        "model": model,
        "task": type(task).__name__,
        "cfg_scale": str(cfg_scale),
        "num_inference_steps": str(result.num_inference_steps),
        "native_size": "x".join(map(str, result.native_size)),
    }
    for number, (path, pixels) in enumerate(zip(numbered(output, len(result.images)), result.images, strict=True)):
        write_picture(path, pixels, told | {"seed": str(seed + number)})
        print(path, flush=True)
        if preview and sys.stdout.isatty():
            _show(path)


def find_folder(model: str) -> Path:
    """The folder of `model`: one that has a `model_index.json`, or else that of a model's name."""
    from kilonova.models.components import INDEX_FILE
    from kilonova.models.registry import Registry

    if (Path(model) / INDEX_FILE).is_file():
        return Path(model)
    return Registry().get(model).directory


class _Progress:
    """A bar that appears with the first step, when the number of steps is known."""

    def __init__(self) -> None:
        self._reporter: ProgressReporter | None = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reporter is not None:
            self._reporter.__exit__()

    def on_step(self, done: int, total: int) -> None:
        """What `Canvas.generate` calls."""
        from kilonova.core.progress import ProgressReporter

        if self._reporter is None:
            self._reporter = ProgressReporter("drawing", total).__enter__()
        self._reporter.update(done)


def _show(path: Path) -> None:
    import shutil

    from PIL import Image

    from kilonova.cli.image_preview import detect_protocol, render

    with Image.open(path) as image:
        sys.stdout.write(render(image, detect_protocol(), shutil.get_terminal_size().columns))
    sys.stdout.flush()
