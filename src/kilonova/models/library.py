"""Bring models into the user's own collection, and take them out again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kilonova.core.errors import ConfigError, ModelNotFound
from kilonova.core.files import atomic_directory, write_atomic
from kilonova.models.companions import check_new
from kilonova.models.registry import (
    METADATA_FILE,
    PIPELINE_FILE,
    ModelEntry,
    Registry,
    check_name,
    is_adapter,
    models_home,
)
from kilonova.models.shards import read_json

_MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.md", "LICENSE*", "NOTICE*", METADATA_FILE)


def import_model(
    name: str, source: str | Path, *, link: bool = False, base: str = "", home: Path | None = None
) -> ModelEntry:
    """Make a Hugging Face or PEFT directory, or a folder of components, known as `name` in later runs.

    Its files are copied, or with `link` referred to where they are. What is in a layout of ours is checked first, down
    to names and shapes of its tensors; a name already imported is a `ConfigError`. `base` is the name of the model that
    an adapter belongs to, where `source` does not tell.
    """
    source = Path(source).expanduser().resolve()
    destination = (home or models_home()) / check_name(name)
    if destination.exists() or destination.is_symlink():
        raise ConfigError(f"model {name!r} is already imported at {destination}; remove it first")
    if is_adapter(source):
        return _import_adapter(name, source, destination, link, base)
    if base:
        raise ConfigError(f"{source} is a whole model, which has no base")
    _verify(source)
    ModelEntry.from_directory(source, name=name)
    _place(source, destination, link)
    return ModelEntry.from_directory(destination, name=name)


def export_model(entry: ModelEntry, destination: str | Path) -> None:
    """Write the directory of `entry` to `destination`, which must not exist or be empty."""
    destination = Path(destination).expanduser().resolve()
    check_new(destination)
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


def _import_adapter(name: str, source: Path, destination: Path, link: bool, base: str) -> ModelEntry:
    from kilonova.models.adapter import check_adapter

    registry = Registry(home=destination.parent)
    if name in {known for entry in registry.entries() for known in (entry.name, *entry.aliases)}:
        raise ConfigError(f"a model is named {name!r} already; choose another name for the adapter")
    entry = registry.adapter_entry(source, name, base)
    check_adapter(source, registry.get(entry.base).directory)
    if base and link and registry.adapter_entry(source, name).base != entry.base:
        raise ConfigError(f"{source} stays as it is and does not name the base {base!r}; import a copy")
    _place(source, destination, link)
    if base and not link:
        path = destination / METADATA_FILE
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else [f'name = "{name}"']
        lines = [f'base = "{base}"', *(line for line in lines if not line.startswith("base"))]
        write_atomic(path, "\n".join(lines) + "\n")
    return registry.adapter_entry(destination, name, base)


def _verify(source: Path) -> None:
    if not (source / PIPELINE_FILE).is_file():
        from kilonova.models.checkpoint import verify_checkpoint

        verify_checkpoint(source)
        return
    from kilonova.models.components import is_own_folder, load_folder

    if is_own_folder(read_json(source / PIPELINE_FILE)):
        load_folder(source)


def _place(source: Path, destination: Path, link: bool) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    if link:
        os.symlink(source, destination, target_is_directory=True)
    else:
        _copy_model(source, destination)


def _copy_model(source: Path, destination: Path) -> None:
    find = source.rglob if (source / PIPELINE_FILE).is_file() else source.glob
    files = {file for pattern in _MODEL_FILES for file in find(pattern) if file.is_file()}
    with atomic_directory(destination) as temporary:
        for file in files:
            copy = temporary / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
