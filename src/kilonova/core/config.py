"""Typed configuration from YAML files and `key.sub=value` overrides."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import msgspec
import yaml

from kilonova.core.errors import ConfigError, nearest
from kilonova.core.files import write_atomic

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML in which `3e-4` is a number, as people expect, and not a string."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.[\d_]*|\.\d+|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?$|^[-+]?\.inf$|^\.nan$"),
    list("-+0123456789."),
)


def load_config(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into the dataclass `cls`, then apply overrides such as `optimizer.lr=3e-4`.

    Every key must be a field of the dataclass at its place; an unknown one is a `ConfigError` that names the nearest
    valid key. Values are converted strictly: a string is not a number.
    """
    return parse_config(cls, load_tree(path, overrides), source=str(path))


def load_tree(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a YAML file says once overrides are applied, before it is checked against a type."""
    try:
        tree = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping of keys is expected, not {type(tree).__name__}")
    for override in overrides:
        _apply_override(tree, override)
    return tree


def parse_config(cls: type[T], tree: Mapping[str, Any], source: str = "configuration") -> T:
    """Convert a tree of mappings, lists and scalars into the dataclass `cls`; see `load_config`."""
    _check_keys(cls, tree, "")
    try:
        return msgspec.convert(tree, cls)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}") from error


def save_config(config: Any, path: str | Path) -> None:
    """Write a dataclass as YAML that `load_config` reads back as the same."""
    write_atomic(path, yaml.safe_dump(msgspec.to_builtins(config), sort_keys=False, allow_unicode=True))


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {override!r} is not of the form key.sub=value")
    *parents, last = key.split(".")
    node: Any = tree
    for parent in parents:
        if isinstance(node, list) and parent.isdigit() and int(parent) < len(node):
            node = node[int(parent)]
        elif isinstance(node, dict):
            node = node.setdefault(parent, {})
        else:
            raise ConfigError(f"override {override!r}: {parent!r} is not a section")
    if not isinstance(node, dict):
        raise ConfigError(f"override {override!r}: {key!r} is not inside a section")
    node[last] = yaml.load(text, Loader=_Loader)


def _check_keys(cls: Any, tree: Any, where: str) -> None:
    """Raise for the first key in `tree` that the dataclass does not have, at any depth."""
    if not (dataclasses.is_dataclass(cls) and isinstance(tree, Mapping)):
        return
    hints = get_type_hints(cls)
    for key, value in tree.items():
        name = f"{where}{key}"
        if key not in hints:
            raise ConfigError(f"unknown key {name!r}: {nearest(str(key), hints)}")
        for inner in _dataclasses_in(hints[key]):
            if isinstance(value, list):
                items = {f"{name}.{index}.": item for index, item in enumerate(value)}
            elif get_origin(hints[key]) is dict and isinstance(value, Mapping):
                items = {f"{name}.{inner_key}.": item for inner_key, item in value.items()}
            else:
                items = {f"{name}.": value}
            for place, item in items.items():
                _check_keys(inner, item, place)


def _dataclasses_in(hint: Any) -> list[Any]:
    """The single dataclass a type hint holds (`X`, `X | None`, `tuple[X, ...]`), if there is just one."""
    arguments = getattr(hint, "__args__", ())
    found = [hint] if dataclasses.is_dataclass(hint) else [c for a in arguments for c in _dataclasses_in(a)]
    return found if len(found) == 1 else []
