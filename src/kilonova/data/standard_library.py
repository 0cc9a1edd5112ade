"""Text that every machine has: the documentation inside Python's standard library."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from functools import cache
from pathlib import Path
from typing import Literal

_SHORTEST = 400


@cache
def documentation(part: Literal["calibration", "held-out"]) -> tuple[str, ...]:
    """The documentation strings of every second module, one text a module; the other `part` has the rest.

    Which texts these are depends on the version of Python alone. Modules with next to none are left out.
    """
    root = Path(sysconfig.get_path("stdlib"))
    paths = [*root.glob("*.py"), *(path for folder in _PACKAGES for path in (root / folder).glob("*.py"))]
    texts = [text for path in sorted(paths) if len(text := _docstrings(path)) >= _SHORTEST]
    return tuple(texts[0::2] if part == "calibration" else texts[1::2])


_PACKAGES = ("asyncio", "collections", "concurrent/futures", "email", "http", "importlib", "json", "logging", "urllib")


def _docstrings(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
    return "\n\n".join(text for text in found if text)
