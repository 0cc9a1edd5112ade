"""From a recipe's `objective` to the objective itself."""

from __future__ import annotations

from kilonova.train.context import RunContext
from kilonova.train.objective import Objective
from kilonova.train.objectives.language_model import LanguageModelObjective
from kilonova.train.placed import PlacedDecoder


def build_objective(context: RunContext, model: PlacedDecoder) -> Objective:
    """The objective that the recipe names, over `model`, the decoder it trains."""
    match context.recipe.objective:
        case "pretrain" | "sft":
            return LanguageModelObjective(context, model)
