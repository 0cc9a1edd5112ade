"""`kilonova data world`: look at drawn scenes, or write them with all that is known of them."""

from __future__ import annotations

import io
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kilonova.core.errors import ConfigError
from kilonova.core.files import write_atomic


class SceneSplit(StrEnum):
    """Whether a scene may, or must, show what training never shows."""

    train = "train"
    held_out = "held_out"


def world(
    output: Annotated[
        Path, typer.Argument(help="A .png file for a sheet of scenes, or a .jsonl file for what is known of them.")
    ],
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many scenes.")] = 24,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Side of a scene on a sheet, in pixels.")] = 192,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds draw equal scenes.")] = 0,
    task: Annotated[str | None, typer.Option(help="One kind of scene, such as counting; else all.")] = None,
    split: Annotated[SceneSplit, typer.Option(help="held_out shows looks that training never shows.")] = (
        SceneSplit.train
    ),
) -> None:
    """Draw scenes of shapes and things, whose every fact is known.

    A row of a .jsonl file holds a scene's captions and its questions with answers.

    Example: kilonova data world scenes.png --count 24 --seed 1
    """
    import numpy as np

    from kilonova.data.world.captions import long_caption, short_caption
    from kilonova.data.world.questions import questions
    from kilonova.data.world.sampling import SceneConfig, sample_scene
    from kilonova.data.world.sheet import contact_sheet

    config = SceneConfig(task=task, split=split.value)
    scenes = [sample_scene((seed, index), config) for index in range(count)]
    if output.suffix == ".png":
        if count > 200:
            raise ConfigError("count: a sheet holds at most 200 scenes; write a .jsonl file instead")
        file = io.BytesIO()
        contact_sheet(scenes, size).save(file, "PNG")
        write_atomic(output, file.getvalue())
    elif output.suffix == ".jsonl":
        lines = []
        for index, scene in enumerate(scenes):
            generator = np.random.default_rng([seed, index])
            asked = [
                {"kind": each.kind, "question": each.text, "answer": each.answer, "choices": each.choices}
                for each in questions(scene, generator)
            ]
            captions = {"short": short_caption(scene, generator).text, "long": long_caption(scene, generator).text}
            lines.append(json.dumps({"scene": [seed, index], "captions": captions, "questions": asked}) + "\n")
        write_atomic(output, "".join(lines))
    else:
        raise ConfigError(f"output: {output} is neither a .png nor a .jsonl file")
    print(output)
