"""Checkpoints of a run in progress: written whole, newest found on start, old ones removed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import torch

from kilonova.core.errors import CheckpointError
from kilonova.core.files import atomic_directory

_NAME = re.compile(r"step-(\d+)")


def save_training_state(directory: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write `state` to `directory/step-NNNNNNNN`, then remove all but the `keep` newest, and unfinished ones."""
    path = directory / f"step-{step:08d}"
    with atomic_directory(path) as temporary:
        torch.save(state, temporary / "training_state.pt")
    # What a run that was killed while it saved has left goes too: only one run writes here.
    partial = [entry for entry in directory.iterdir() if entry.name.startswith(".step-")]
    for old in (*(old for _, old in _checkpoints(directory)[:-keep]), *partial):
        shutil.rmtree(old)
    return path


def load_newest_training_state(directory: Path) -> dict[str, Any] | None:
    """The state of the newest complete checkpoint below `directory`, or None when there is none."""
    found = _checkpoints(directory)
    if not found:
        return None
    path = found[-1][1] / "training_state.pt"
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); remove its folder to resume from the one before"
        ) from error


def _checkpoints(directory: Path) -> list[tuple[int, Path]]:
    if not directory.is_dir():
        return []
    return sorted(
        (int(match[1]), path) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name)) and path.is_dir()
    )
