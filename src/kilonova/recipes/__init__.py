"""Recipes: one YAML file a run."""

from __future__ import annotations

from pathlib import Path

from kilonova.core.errors import ConfigError, nearest

_DIRECTORY = Path(__file__).parent


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package, such as `micro/pretrain`."""
    return sorted(str(path.relative_to(_DIRECTORY).with_suffix("")) for path in _DIRECTORY.rglob("*.yaml"))


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe, given as a path or as a shipped name."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = _DIRECTORY / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    raise ConfigError(f"no recipe {str(name)!r}: {nearest(str(name), shipped_recipes())}")
