"""Experiment trackers: where a run's numbers go besides its own log."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from kilonova.core.errors import ConfigError

TrackerName = Literal["tensorboard", "wandb"]


class Tracker(Protocol):
    """Somewhere that plots numbers by step."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def open_trackers(names: Sequence[TrackerName], directory: Path, configuration: Mapping[str, Any]) -> list[Tracker]:
    """The trackers of these names for a run in `directory`; `ConfigError` for one that is not installed."""
    kinds: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
        "tensorboard": TensorBoardTracker,
        "wandb": WandbTracker,
    }
    return [kinds[name](directory, configuration) for name in names]


class TensorBoardTracker:
    """Writes event files to `tensorboard/` in the run's folder; see them with `tensorboard --logdir`."""

    def __init__(self, directory: Path, configuration: Mapping[str, Any]) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise _not_installed("tensorboard") from error
        self._writer = SummaryWriter(str(directory / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbTracker:
    """Logs to Weights & Biases, as its own environment variables say (`WANDB_MODE=offline` keeps all on this machine).

    A run that is continued goes on in the same W&B run, named after its folder.
    """

    def __init__(self, directory: Path, configuration: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _not_installed("wandb") from error
        identity = directory / "wandb-id"
        if not identity.exists():
            identity.write_text(secrets.token_hex(4), encoding="utf-8")
        self._run = wandb.init(
            project="kilonova",
            name=directory.name,
            id=identity.read_text(encoding="utf-8"),
            resume="allow",
            dir=directory,
            config=dict(configuration),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _not_installed(name: str) -> ConfigError:
    return ConfigError(f"trackers: {name} is not installed; run: pip install 'kilonova[{name}]'")
