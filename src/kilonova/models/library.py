"""Bring models into the user's own collection, and take them out again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kilonova.core.errors import ConfigError, ModelNotFound
from kilonova.core.files import atomic_directory
from kilonova.models.registry import METADATA_FILE, ModelEntry, check_name, models_home

_MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.md", "LICENSE*", "NOTICE*", METADATA_FILE)


def import_model(name: str, source: str | Path, *, link: bool = False, home: Path | None = None) -> ModelEntry:
    """Make the Hugging Face directory `source` known as `name` in every later run.

    Its files are copied, or with `link` referred to where they are. The checkpoint is checked first, down to names
    and shapes of its tensors; a name already imported is a `ConfigError`.
    """
    from kilonova.models.checkpoint import verify_checkpoint

    source = Path(source).expanduser().resolve()
    destination = (home or models_home()) / check_name(name)
    if destination.exists() or destination.is_symlink():
        raise ConfigError(f"model {name!r} is already imported at {destination}; remove it first")
    verify_checkpoint(source)
    ModelEntry.from_directory(source, name=name)
    destination.parent.mkdir(parents=True, exist_ok=True)
    if link:
        os.symlink(source, destination, target_is_directory=True)
    else:
        _copy_model(source, destination)
    return ModelEntry.from_directory(destination, name=name)


def export_model(entry: ModelEntry, destination: str | Path) -> None:
    """Write `entry` as a Hugging Face directory to `destination`, which must not exist or be empty."""
    destination = Path(destination).expanduser().resolve()
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ConfigError(f"{destination}: already exists and is not an empty directory")
    _copy_model(entry.directory, destination)


def remove_model(name: str, *, home: Path | None = None) -> None:
    """Forget an imported model; its files are deleted if they were copied, and left alone if linked."""
    path = (home or models_home()) / check_name(name)
    if path.is_symlink():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        raise ModelNotFound(f"no imported model {name!r} in {path.parent}")


def _copy_model(source: Path, destination: Path) -> None:
    files = {file for pattern in _MODEL_FILES for file in source.glob(pattern) if file.is_file()}
    with atomic_directory(destination) as temporary:
        for file in files:
            shutil.copyfile(file, temporary / file.name)
