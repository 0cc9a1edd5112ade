"""What the parts of a run share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from kilonova.core.device import choose_device, choose_dtype
from kilonova.core.errors import ConfigError
from kilonova.train.goodput.ledger import Ledger
from kilonova.train.objective import Objective
from kilonova.train.parallel.mesh import ParallelMesh, local_device
from kilonova.train.run_recipe import RunRecipe


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """A recipe with the device and number format of its arithmetic, and its place among the ranks.

    `rank` and `num_ranks` count data-parallel ranks: those that read different rows. `mesh` is None in a process that
    runs alone.
    """

    recipe: RunRecipe
    device: torch.device
    dtype: torch.dtype
    rank: int = 0
    num_ranks: int = 1
    mesh: ParallelMesh | None = None
    ledger: Ledger = field(default_factory=lambda: Ledger(None))

    @classmethod
    def settle(cls, recipe: RunRecipe, mesh: ParallelMesh | None = None, **more: Any) -> Self:
        """Choose device, number format and threads as the recipe says; `more` are the fields of a subclass."""
        device = local_device(choose_device(recipe.device))
        if recipe.threads is not None:
            torch.set_num_threads(recipe.threads)
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        place: dict[str, Any] = {"device": device, "dtype": choose_dtype(recipe.dtype, device)}
        if mesh is not None:
            if recipe.batch_size % (mesh.num_data_ranks * recipe.micro_batch_size):
                raise ConfigError(
                    f"batch_size: {recipe.batch_size} is not a multiple of {mesh.num_data_ranks} data-parallel ranks x "
                    f"micro_batch_size {recipe.micro_batch_size}"
                )
            place |= {"rank": mesh.data_rank, "num_ranks": mesh.num_data_ranks, "mesh": mesh}
        return cls(recipe=recipe, **place, **more)

    def export(self, objective: Objective, directory: Path) -> None:
        """Write what was trained, in its ecosystem's layout."""
        objective.export(directory)

    def record(self, objective: Objective) -> dict[str, Any]:
        """What a model card tells of such runs beyond what it tells of every run."""
        return {}
