"""The files beside a model's own: tokenizer, chat template, licence."""

from __future__ import annotations

import shutil
from pathlib import Path

from kilonova.core.errors import ConfigError

_COMPANIONS = ("tokenizer*", "*.jinja", "special_tokens_map.json", "vocab.json", "merges.txt", "LICENSE*", "NOTICE*")


def copy_companions(source: str | Path, destination: Path, *names: str) -> None:
    """Copy into the directory `destination` what belongs to every model made from `source`, and its files `names`.

    Files that are already there stay.
    """
    for file in (file for pattern in (*_COMPANIONS, *names) for file in Path(source).glob(pattern)):
        if not (destination / file.name).exists():
            shutil.copyfile(file, destination / file.name)


def check_new(directory: Path) -> None:
    """`ConfigError` unless `directory` does not exist or is empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory}: already exists and is not an empty directory")
