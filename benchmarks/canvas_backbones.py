"""U-ViT beside a cross-attention DiT and UNets, trained alike: loss and TIFA against training compute, with seeds.

The recipe's U-ViT is the baseline; rivals have its parameters, or its operations (`-flops`). `unet-td4_4` is the
SDXL-shaped `unet` with the transformer depths of the variant that is 45 % smaller than SDXL's (arXiv 2404.02883). All
read the same rows in the same order, so that differences are taken seed by seed. Runs that are there already are not
done again, and one that was stopped goes on. With a segmenter and a classifier (see `kilonova eval canvas`), TIFA on
combinations kept from training is measured along each run.

    python benchmarks/canvas_backbones.py [--recipe canvas/compare] [--output runs/canvas/compare] [--seeds 3]
        [--arms uvit,dit,...] [--segmenter DIR --classifier DIR] [--json] [steps=4000 device=cuda ...]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student_t

from kilonova.core.config import load_tree
from kilonova.core.errors import ConfigError
from kilonova.core.files import write_atomic
from kilonova.models.components import read_config
from kilonova.models.dit.config import DiTConfig
from kilonova.models.sizing import BackboneConfig, forward_flops, match_dit, match_unet, num_parameters
from kilonova.models.unet.config import UNET_VARIANTS
from kilonova.models.uvit.config import UViTConfig
from kilonova.recipes import find_recipe
from kilonova.train.run import export_checkpoint, train

SPATIAL_FACTOR, TEXT_TOKENS = 8, 16
# How often TIFA is measured in a run.
POINTS = 4
BASELINE, SDXL_SHAPED, SMALLER = "uvit", "unet", "unet-td4_4"
ARMS = (BASELINE, "dit", "dit-flops", SDXL_SHAPED, "unet-flops", SMALLER)
COLOURS = ("#2f6db3", "#e08b2c", "#c2a23a", "#3f9c6b", "#8c5fb0", "#b0413e")


def backbone(arm: str, uvit: UViTConfig, side: int) -> BackboneConfig:
    """The shape of an arm beside `uvit`, for square latents of `side`."""
    if arm == BASELINE:
        return uvit
    flops = partial(forward_flops, height=side, width=side, num_text_tokens=TEXT_TOKENS)
    measure = flops if arm.endswith("-flops") else num_parameters
    common: dict[str, Any] = {"in_channels": uvit.in_channels, "text_hidden_size": uvit.text_hidden_size}
    if arm.startswith("dit"):
        like = DiTConfig(
            hidden_size=uvit.hidden_size,
            num_hidden_layers=max(round(0.75 * uvit.num_hidden_layers), 1),
            num_attention_heads=uvit.num_attention_heads,
            **common,
        )
        return match_dit(like, measure, measure(uvit))
    unet = match_unet(replace(UNET_VARIANTS["sdxl"], **common), measure, measure(uvit))
    return replace(unet, transformer_depth=UNET_VARIANTS["td4_4"].transformer_depth) if arm == SMALLER else unet


def write_recipe(base: dict[str, Any], arm: str, seed: int, output: Path, keep: bool) -> Path:
    """The recipe of one run, in `output`; the one that is there if it differs in nothing but the backbone.

    `keep` says that checkpoints are kept at which TIFA can be measured.
    """
    path = output / f"{arm}-{seed}.yaml"
    every = max(base["steps"] // POINTS, 1)
    recipe = {**base, "output": str(output / path.stem), "seed": seed, "checkpoint_every": every}
    recipe["keep_every"] = every if keep else None
    if path.exists():
        there = yaml.safe_load(path.read_text(encoding="utf-8"))
        own = {"model": None, "keep_every": None}
        if {**there, **own} != {**recipe, **own}:
            raise ConfigError(f"{path} is of another recipe; give another --output")
        return path
    uvit = read_config(base["model"]["config"], "model.config")
    if not isinstance(uvit, UViTConfig):
        raise ConfigError(f"model.config._class_name: {type(uvit).__name__} is no baseline; give a UViT")
    config = backbone(arm, uvit, base["pictures"]["sizes"][0][0] // SPATIAL_FACTOR)
    class_name = type(config).__name__.removesuffix("Config")
    recipe["model"] = {"config": {"_class_name": class_name, **config.to_dict()}}
    write_atomic(path, yaml.safe_dump(recipe, sort_keys=False))
    return path


def result_of(recipe: Path, measured: dict[int, float]) -> dict[str, Any]:
    """What a run that is done left: its size, and loss and TIFA after steps, with the operations until then."""
    settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    run = Path(settings["output"])
    record = json.loads((run / "model" / "training.json").read_text(encoding="utf-8"))
    losses: dict[int, float] = {}
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "validation" in entry:
            losses[entry["step"]] = statistics.mean(entry["validation"].values())
    losses[record["steps"]] = statistics.mean(record["validation_loss"].values())
    each = record["flops"] / record["steps"]
    side = settings["pictures"]["sizes"][0][0] // SPATIAL_FACTOR
    config: Any = read_config(settings["model"]["config"], str(recipe))
    return {
        "parameters": num_parameters(config),
        "forward_flops": forward_flops(config, side, side, TEXT_TOKENS),
        "seconds": record["seconds"],
        "loss": [[step, step * each, loss] for step, loss in sorted(losses.items())],
        "tifa": [[step, step * each, value] for step, value in sorted(measured.items())],
    }


def measure_tifa(recipe: Path, judges: tuple[Path, Path], pictures: int, cfg_scale: float) -> dict[int, float]:
    """TIFA of a run's model, and of those in checkpoints that were kept, by step; remembered in the run's folder."""
    from kilonova.evals.canvas.attributes import NetworkAttributes
    from kilonova.evals.canvas.faithfulness import measure
    from kilonova.evals.canvas.study import Study
    from kilonova.studio.canvas import Canvas
    from kilonova.studio.mask_former import MaskFormer
    from kilonova.train.checkpoint.folder import CheckpointFolder

    settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    run, last = Path(settings["output"]), settings["steps"]
    path = run / f"tifa-{pictures}-{cfg_scale:g}.json"
    found = {int(step): value for step, value in json.loads(path.read_text()).items()} if path.exists() else {}
    kept = CheckpointFolder(run / "checkpoints").steps()
    every = settings["checkpoint_every"]
    for step in sorted({*(step for step in kept if step % every == 0), last} - found.keys()):
        folder = run / "model" if step == last else run / "points" / str(step)
        if not folder.exists():
            export_checkpoint(run, folder, step)
        study = Study(
            canvas=Canvas.load(folder),
            limit=pictures,
            cfg_scale=cfg_scale,
            segmenter=MaskFormer.load(judges[0]),
            attributes=NetworkAttributes.load(judges[1]),
        )
        found[step] = measure(study)[0].value
        write_atomic(path, json.dumps(found))
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % interval by Student's distribution."""
    half = student_t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), float(half)


def verdict(mean: float, half: float, better: str, worse: str) -> str:
    """What an interval of differences says, of a measure of which less is better."""
    if not abs(mean) > half:
        return "not told apart"
    return better if mean < 0 else worse


def summarise(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """For each arm its size, last loss and TIFA, and how much more loss it has than the baseline, with intervals."""
    rows = {}
    for arm, runs in results.items():
        row: dict[str, Any] = {key: runs[0][key] for key in ("parameters", "forward_flops")}
        for name in ("loss", "tifa"):
            if all(run[name] for run in runs):
                row[name] = interval([run[name][-1][2] for run in runs])
        for other in (BASELINE, SDXL_SHAPED):
            if other in results and arm != other:
                pairs = zip(runs, results[other], strict=True)
                mean, half = interval([run["loss"][-1][2] - beside["loss"][-1][2] for run, beside in pairs])
                row[f"loss_over_{other}"] = (mean, half)
                row[f"against_{other}"] = verdict(mean, half, "better", "worse")
        rows[arm] = row
    return rows


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Loss, and TIFA if it is known, against training compute; a band from the lowest to the highest seed."""
    from matplotlib.figure import Figure

    names = [name for name in ("loss", "tifa") if all(run[name] for runs in results.values() for run in runs)]
    figure = Figure(figsize=(6.5 * len(names), 4.8), layout="constrained", dpi=120)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for arm, colour in zip(results, COLOURS, strict=False):
            points = list(zip(*(run[name] for run in results[arm]), strict=False))
            flops = [point[0][1] for point in points]
            values = [[run[2] for run in point] for point in points]
            parameters = results[arm][0]["parameters"] / 1e6
            axes.plot(flops, [statistics.mean(v) for v in values], color=colour, label=f"{arm}, {parameters:.2g} M")
            axes.fill_between(flops, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.2)
        axes.set_xscale("log")
        axes.set_xlabel("training FLOPs of the backbone")
        axes.set_ylabel("held-out loss" if name == "loss" else "TIFA on held-out combinations")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    figure.savefig(path)


def table_of(rows: dict[str, Any], seeds: int) -> Table:
    def pair(row: dict[str, Any], name: str, sign: str = "") -> str:
        return f"{row[name][0]:{sign}.4f} ± {row[name][1]:.4f}" if name in row else ""

    table = Table(title=f"{seeds} seeds; ± is half a 95 % interval", caption="against the U-ViT: seed by seed")
    for heading in ("backbone", "parameters", "GFLOPs", "held-out loss", "more than the U-ViT's", "", "TIFA"):
        table.add_column(heading, justify="left" if heading == "backbone" else "right")
    for arm, row in rows.items():
        table.add_row(
            arm,
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['forward_flops'] / 1e9:.2f}",
            pair(row, "loss"),
            pair(row, f"loss_over_{BASELINE}", "+"),
            row.get(f"against_{BASELINE}", ""),
            pair(row, "tifa"),
        )
    return table


def notes(rows: dict[str, Any]) -> list[str]:
    """Whether what the papers found is seen."""
    said = []
    rivals = {arm: rows[arm].get(f"against_{BASELINE}") for arm in rows if arm not in (BASELINE, SMALLER)}
    if any(rivals.values()):
        words = ", ".join(f"{arm} is {word}" for arm, word in rivals.items() if word)
        said.append(f"U-ViT ahead of its rivals (arXiv 2412.12391)? Beside it, {words}.")
    if SMALLER in rows and SDXL_SHAPED in rows:
        share = 1 - rows[SMALLER]["parameters"] / rows[SDXL_SHAPED]["parameters"]
        word = rows[SMALLER][f"against_{SDXL_SHAPED}"]
        said.append(f"The UNet of depths 0, 4, 4 is {share:.0%} smaller than that of SDXL's depths; beside it: {word}.")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="canvas/compare", help="of a flow with a UViT")
    parser.add_argument("--output", type=Path, default=Path("runs/canvas/compare"))
    parser.add_argument("--arms", default=",".join(ARMS), help="which, with commas between them")
    parser.add_argument("--seeds", type=int, default=3, help="at least two")
    parser.add_argument("--segmenter", type=Path, help="folder of a trained segmenter, for TIFA")
    parser.add_argument("--classifier", type=Path, help="folder of a trained classifier, for TIFA")
    parser.add_argument("--pictures", type=int, default=100, help="drawn for each TIFA")
    parser.add_argument("--cfg-scale", type=float, default=3.0)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="values that replace the recipe's own")
    arguments = parser.parse_intermixed_args()
    arms = arguments.arms.split(",")
    if unknown := [arm for arm in arms if arm not in ARMS]:
        parser.error(f"--arms: {unknown[0]!r} is not one of {', '.join(ARMS)}")
    if arguments.seeds < 2:
        parser.error("--seeds: an interval needs at least two")
    if (arguments.segmenter is None) != (arguments.classifier is None):
        parser.error("--segmenter and --classifier come together")
    judges = None if arguments.segmenter is None else (arguments.segmenter, arguments.classifier)
    base = load_tree(find_recipe(arguments.recipe), arguments.overrides)
    base["pictures"].setdefault("sizes", [[128, 128]])
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    report: dict[str, Any] = {}
    # By seeds first, so that what is there is a comparison already when it is stopped.
    for seed in range(1, arguments.seeds + 1):
        for arm in arms:
            recipe = write_recipe(base, arm, seed, arguments.output, keep=judges is not None)
            if not (arguments.output / recipe.stem / "model" / "training.json").exists():
                train(recipe)
            measured = {}
            if judges is not None:
                measured = measure_tifa(recipe, judges, arguments.pictures, arguments.cfg_scale)
            results[arm].append(result_of(recipe, measured))
        if seed > 1:
            rows = summarise(results)
            report = {"seeds": seed, "rows": rows, "notes": notes(rows), "runs": results}
            write_atomic(arguments.output / "backbones.json", json.dumps(report, indent=1) + "\n")
            draw(results, arguments.output / "backbones.png")
    if arguments.json:
        print(json.dumps(report))
        return
    console = Console()
    console.print(table_of(report["rows"], arguments.seeds))
    for note in report["notes"]:
        console.print(note, highlight=False)


if __name__ == "__main__":
    main()
