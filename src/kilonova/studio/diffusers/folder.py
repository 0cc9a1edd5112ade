"""Diffusers folders: which families are known, and how their pipelines are read."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from kilonova.core.errors import CheckpointError, ConfigError, nearest
from kilonova.models.components import INDEX_FILE
from kilonova.models.shards import read_json
from kilonova.studio.diffusers.families import FAMILIES, Family


def family_of(folder: Path) -> Family:
    """The family whose pipeline of texts `model_index.json` names; ConfigError for other classes."""
    name = read_json(folder / INDEX_FILE).get("_class_name")
    # A list would name code of the folder's own, which is not run.
    if not isinstance(name, str) or name not in FAMILIES:
        raise ConfigError(f"{folder / INDEX_FILE}: _class_name: {name!r} is not known; {nearest(str(name), FAMILIES)}")
    return FAMILIES[name]


def load_pipeline(folder: Path, family: Family, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline of texts in `folder`, on `device` in `dtype`; CheckpointError for one that does not load.

    Nothing is downloaded, and weights that would run code as they are read (pickles) are refused.
    """
    return _read(family.text, folder, dtype).to(device)


def load_controlnet(folder: Path, family: Family, device: torch.device, dtype: torch.dtype) -> Any:
    """The ControlNet in `folder`, on `device` in `dtype`; CheckpointError for one that does not load."""
    return _read(family.controlnet, folder, dtype).to(device).eval()


def diffusers_class(name: str) -> Any:
    """The class `name` of diffusers; ConfigError with the command that installs it."""
    missing = [package for package in ("diffusers", "transformers") if find_spec(package) is None]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} must be installed first: pip install 'kilonova[diffusers]'")
    import diffusers

    return getattr(diffusers, name)


def _hide_progress_bars() -> None:
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()


def _read(class_name: str, folder: Path, dtype: torch.dtype) -> Any:
    loader = diffusers_class(class_name)
    _hide_progress_bars()
    try:
        return loader.from_pretrained(str(folder), dtype=dtype, local_files_only=True, use_safetensors=True)
    # Libraries below raise what they like for files that are missing, damaged or of another shape.
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise CheckpointError(f"{folder}: {class_name} does not load: {error}") from error
