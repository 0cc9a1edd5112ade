"""From a recipe's `objective` to the objective itself."""

from __future__ import annotations

from kilonova.train.context import RunContext
from kilonova.train.objective import Objective
from kilonova.train.objectives.distillation import DistillationObjective
from kilonova.train.objectives.dpo import DPOObjective
from kilonova.train.objectives.grpo import GRPOObjective
from kilonova.train.objectives.language_model import LanguageModelObjective
from kilonova.train.objectives.ppo import PPOObjective
from kilonova.train.objectives.reward import RewardObjective
from kilonova.train.placed import PlacedDecoder


def build_objective(context: RunContext, model: PlacedDecoder) -> Objective:
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
