"""Seconds of each task of a picture model, and of several numbers of steps."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from rich.table import Table

from kilonova.core.errors import InvalidRequest
from kilonova.data.world.render import render
from kilonova.data.world.sampling import sample_scene
from kilonova.studio import tasks
from kilonova.studio.loading import load_canvas
from picture_speed.clock import Clock


def measure_latency(arguments: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Seconds of each task of a folder at its standard number of steps, and of texts at other numbers."""
    canvas = load_canvas(arguments.model, arguments.device)
    pixels = arguments.answer_pixels
    picture = np.ascontiguousarray(render(sample_scene((1, 0)), pixels).image[..., :3])
    mask = np.zeros((pixels, pixels), bool)
    mask[pixels // 4 : pixels // 2, pixels // 4 : pixels // 2] = True
    text = "a red apple on a white table"
    asked: dict[str, tasks.ImageTask] = {
        "TextToImage": tasks.TextToImage(text=text),
        "TextToImage, edges": tasks.TextToImage(text=text, control=tasks.Control(picture=picture)),
        "ColorGuidedGeneration": tasks.ColorGuidedGeneration(text=text, colors=((226, 54, 54), (40, 96, 230))),
        "ImageVariation": tasks.ImageVariation(images=(picture,)),
        "Inpainting": tasks.Inpainting(image=picture, mask=mask, text=text),
        "Outpainting": tasks.Outpainting(image=picture, mask=~mask, text=text),
        "BackgroundRemoval": tasks.BackgroundRemoval(image=picture),
        "VirtualTryOn": tasks.VirtualTryOn(source=picture, reference=picture, mask=mask),
    }

    def seconds(task: tasks.ImageTask, steps: int | None = None) -> float:
        request = tasks.ImageRequest(task=task, width=pixels, height=pixels, num_inference_steps=steps)
        return clock.median(lambda: canvas.generate(request), arguments.rounds)

    by_task: dict[str, float | str] = {}
    for name, task in asked.items():
        try:
            by_task[name] = "not measured" if clock.is_over else seconds(task)
        except InvalidRequest as error:
            by_task[name] = str(error)
    by_steps = {n: seconds(asked["TextToImage"], n) for n in arguments.steps_list if not clock.is_over}
    return {
        "model": str(arguments.model),
        "pixels": pixels,
        "standard_steps": canvas.settings.num_inference_steps.standard,
        "seconds_by_task": by_task,
        "seconds_by_steps": by_steps,
    }


def latency_table(latency: dict[str, Any]) -> Table:
    table = Table("what", "seconds", title=f"{latency['pixels']} px, {latency['standard_steps']} steps")
    for name, value in latency["seconds_by_task"].items():
        table.add_row(name, value if isinstance(value, str) else f"{value:.2f}")
    for steps, value in latency["seconds_by_steps"].items():
        table.add_row(f"TextToImage, {steps} steps", f"{value:.2f}")
    return table
