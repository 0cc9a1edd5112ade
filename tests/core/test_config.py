from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from kilonova.core.config import load_config, parse_config
from kilonova.core.errors import ConfigError


@dataclass(frozen=True)
class Part:
    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class Inner:
    lr: float
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    inner: Inner
    steps: int
    parts: tuple[Part, ...] = field(default_factory=tuple)
    note: str | None = None


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_values_and_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "inner: {lr: 3e-4}\nsteps: 5\nparts: [{name: x}, {name: y, weight: 2}]\n")
    loaded = load_config(Outer, path, ["inner.kind=b", "steps=7", "parts.1.weight=0.5", "note=null"])
    assert loaded == Outer(Inner(3e-4, "b"), 7, (Part("x"), Part("y", 0.5)))


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", ".001", "0.001"])
def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, f"inner: {{lr: {text}}}\nsteps: 1\n")
    assert load_config(Outer, path).inner.lr == 0.001
    assert load_config(Outer, path, [f"inner.lr={text}"]).inner.lr == 0.001


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"inner": {"lr": 1}, "stepz": 1}, "unknown key 'stepz': did you mean 'steps'?"),
        ({"inner": {"lr": 1, "kin": "a"}, "steps": 1}, "unknown key 'inner.kin': did you mean 'kind'?"),
        ({"inner": {"lr": 1}, "steps": 1, "parts": [{"name": "x", "wait": 1}]}, "unknown key 'parts.0.wait'"),
        ({"inner": {"lr": 1}, "steps": "1"}, "steps"),
        ({"inner": {"lr": 1, "kind": "c"}, "steps": 1}, "inner.kind"),
        ({"steps": 1}, "inner"),
    ],
)
def test_errors_name_the_key(tree: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        parse_config(Outer, tree)


@pytest.mark.parametrize("override", ["steps", "=3", "steps.sub=3", "parts.9.name=x"])
def test_malformed_overrides(tmp_path: Path, override: str) -> None:
    path = write(tmp_path, "inner: {lr: 1}\nsteps: 5\nparts: []\n")
    with pytest.raises(ConfigError, match="override"):
        load_config(Outer, path, [override])


@pytest.mark.parametrize("text", ["a: [", "- 1\n", ""])
def test_files_that_are_no_mapping(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load_config(Outer, write(tmp_path, text))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(Outer, tmp_path / "none.yaml")
