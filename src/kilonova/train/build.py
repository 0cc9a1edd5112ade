"""From a recipe to what it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

from kilonova.core.config import load_tree, parse_config
from kilonova.core.errors import ConfigError
from kilonova.train.context import RunContext
from kilonova.train.goodput.ledger import Ledger
from kilonova.train.language_context import LanguageContext
from kilonova.train.language_run import language_context, place_decoder
from kilonova.train.objective import Objective
from kilonova.train.objectives.distillation import DistillationObjective
from kilonova.train.objectives.dpo import DPOObjective
from kilonova.train.objectives.grpo import GRPOObjective
from kilonova.train.objectives.language_model import LanguageModelObjective
from kilonova.train.objectives.ppo import PPOObjective
from kilonova.train.objectives.reward import RewardObjective
from kilonova.train.parallel.mesh import ParallelMesh
from kilonova.train.pictures.autoencoder import AutoencoderObjective
from kilonova.train.pictures.classifier import ClassifierObjective
from kilonova.train.pictures.context import PictureContext
from kilonova.train.pictures.flow import FlowObjective
from kilonova.train.pictures.recipe import PictureRecipe
from kilonova.train.pictures.segmenter import SegmenterObjective
from kilonova.train.pictures.segmenter_parts import SegmenterContext
from kilonova.train.pictures.segmenter_recipe import SegmenterRecipe
from kilonova.train.placed import PlacedDecoder
from kilonova.train.recipe import TrainRecipe
from kilonova.train.run_recipe import RunRecipe

_KINDS: tuple[type[RunRecipe], ...] = (TrainRecipe, PictureRecipe, SegmenterRecipe)
_PICTURE_OBJECTIVES: dict[str, Callable[[PictureContext], Objective]] = {
    "autoencoder": AutoencoderObjective,
    "classifier": ClassifierObjective,
    "flow": FlowObjective,
}


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> RunRecipe:
    """Read a recipe of whatever kind its `objective` belongs to; see `load_config`."""
    tree = load_tree(path, overrides)
    kinds = {objective: kind for kind in _KINDS for objective in get_args(get_type_hints(kind)["objective"])}
    kind = kinds.get(tree.get("objective"))
    if kind is None:
        raise ConfigError(f"{path}: objective: {tree.get('objective')!r} is not one of {', '.join(kinds)}")
    return parse_config(kind, tree, source=str(path))


def build_run(
    recipe: RunRecipe, mesh: ParallelMesh | None = None, ledger: Ledger | None = None
) -> tuple[RunContext, Objective]:
    """What the parts of a run share, and what it minimises; weights are drawn from PyTorch's generator."""
    match recipe:
        case TrainRecipe():
            context = replace(language_context(recipe, mesh), ledger=ledger or Ledger(None))
            return context, build_objective(context, place_decoder(context))
        case PictureRecipe():
            pictures = replace(PictureContext.settle(recipe, mesh), ledger=ledger or Ledger(None))
            return pictures, _PICTURE_OBJECTIVES[recipe.objective](pictures)
        case SegmenterRecipe():
            segments = replace(SegmenterContext.settle(recipe, mesh), ledger=ledger or Ledger(None))
            return segments, SegmenterObjective(segments)
        case _:
            raise TypeError(f"no run is made of {type(recipe).__name__}")


def build_objective(context: LanguageContext, model: PlacedDecoder) -> Objective:
    """The objective that the recipe names, over `model`, the decoder it trains."""
    match context.recipe.objective:
        case "pretrain" | "sft" as objective:
            return LanguageModelObjective(context, model, whole_documents=objective == "sft")
        case "distill":
            return DistillationObjective(context, model)
        case "reward":
            return RewardObjective(context, model)
        case "dpo":
            return DPOObjective(context, model)
        case "ppo":
            return PPOObjective(context, model)
        case "grpo":
            return GRPOObjective(context, model)
