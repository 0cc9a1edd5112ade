"""How fast pictures are made: U-ViT beside diffusers' transformers, tasks of a model, and the 2.3 B preset on a GPU.

`rivals`: guided denoising steps a second, ours and those of transformers of diffusers with as many tokens and as many
parameters, or operations, taking turns; medians, and the ratio of turns side by side. `latency`: seconds of each task,
and of several numbers of steps, for a folder (`--model`). `inference` and `training`: pictures a second and model FLOPs
utilisation of a preset, as it is, compiled, and in CUDA graphs; only with a GPU unless they are asked for. Each result
is written to the folder `--output` once it is there, and no measurement starts after `--minutes`.

    python benchmarks/canvas_speed.py [--stages rivals,latency] [--size tiny] [--model DIR] [--output DIR]
    python benchmarks/canvas_speed.py --device cuda --stages rivals,inference,training --preset 2.3b
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from kilonova.core.device import choose_device
from kilonova.core.files import write_atomic
from kilonova.models.uvit.config import UVIT_PRESETS
from picture_speed.clock import Clock
from picture_speed.latency import latency_table, measure_latency
from picture_speed.preset import measure_preset, preset_table
from picture_speed.rivals import measure_rivals, rivals_table

STAGES = ("rivals", "latency", "inference", "training")


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", help=f"of {','.join(STAGES)}; what can be done unless given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", help="on a GPU, and of presets")
    parser.add_argument("--threads", type=int, help="of a CPU; PyTorch's own number unless given")
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="no measurement starts later; compiling one takes minutes"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", choices=UVIT_PRESETS, default="tiny", help="of the U-ViT beside its rivals")
    parser.add_argument("--pixels", type=int, default=128, help="of the pictures that it draws")
    parser.add_argument("--steps", type=int, default=10, help="of a turn")
    parser.add_argument("--model", type=Path, help="folder whose tasks are timed")
    parser.add_argument("--answer-pixels", type=int, default=512, help="of the answers to tasks")
    parser.add_argument("--steps-list", type=numbers, default=[4, 8, 16, 25, 50])
    parser.add_argument("--preset", choices=UVIT_PRESETS, default="2.3b", help="for inference and training")
    parser.add_argument("--preset-pixels", type=int, default=512)
    parser.add_argument("--batches", type=numbers, default=[1, 8])
    parser.add_argument("--modes", default="eager,compiled,cuda-graphs", type=lambda text: text.split(","))
    parser.add_argument("--output", type=Path, help="folder for speed.json")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    arguments.device = choose_device(arguments.device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    on_gpu = arguments.device.type == "cuda"
    able = ["rivals", *(["latency"] if arguments.model else []), *(["inference", "training"] if on_gpu else [])]
    stages = arguments.stages.split(",") if arguments.stages else able
    if unknown := set(stages) - set(STAGES):
        parser.error(f"--stages: {', '.join(unknown)} is not one of {', '.join(STAGES)}")
    if "latency" in stages and arguments.model is None:
        parser.error("--model: latency needs a folder")
    clock = Clock(arguments.device, arguments.minutes)
    name = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} CPU threads"
    report: dict[str, Any] = {"device": name, "torch": torch.__version__}
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "rivals": lambda: measure_rivals(arguments, clock),
        "latency": lambda: measure_latency(arguments, clock),
        "inference": lambda: measure_preset(arguments, clock, training=False),
        "training": lambda: measure_preset(arguments, clock, training=True),
    }
    for stage in stages:
        if clock.is_over:
            break
        report[stage] = measures[stage]()
        if arguments.output is not None:
            write_atomic(arguments.output / "speed.json", json.dumps(report, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(report))
    else:
        console = Console()
        if "rivals" in report:
            console.print(rivals_table(report["rivals"], name))
        if "latency" in report:
            console.print(latency_table(report["latency"]))
        for stage in ("inference", "training"):
            if stage in report:
                console.print(preset_table(report[stage], stage, name))


if __name__ == "__main__":
    main()
