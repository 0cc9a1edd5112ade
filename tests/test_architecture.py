"""The house's rules that a program can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "kilonova"
FLOORS = {
    "core": 0,
    "nn": 1,
    "text": 1,
    "data": 1,
    "media": 1,
    "recipes": 1,
    "models": 2,
    "engine": 3,
    "studio": 3,
    "train": 4,
    "evals": 4,
    "serve": 5,
    "cli": 5,
}
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE)


def rooms_imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
        names.update(module.split(".")[1] for module in modules if module.startswith("kilonova."))
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_never_point_up(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0]
    above = {name for name in rooms_imported(path) if FLOORS[name] > FLOORS[room]}
    assert not above, f"{room} (floor {FLOORS[room]}) imports {above}"


def test_rooms_of_one_floor_do_not_depend_on_each_other_in_a_circle() -> None:
    edges = {(p.relative_to(SOURCE).parts[0], room) for p in FILES for room in rooms_imported(p)}
    both_ways = {(a, b) for a, b in edges if a != b and (b, a) in edges}
    assert not both_ways


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_are_short_enough_to_read_at_once(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 450


def test_importing_the_package_loads_next_to_nothing() -> None:
    code = "import sys; before = set(sys.modules); import kilonova; print(len(set(sys.modules) - before))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 5
