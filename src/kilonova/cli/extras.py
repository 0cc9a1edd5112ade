"""Packages that only some commands need."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from kilonova.core.errors import ConfigError


def require_packages(packages: Sequence[str], extra: str) -> None:
    """Raises ConfigError with the command that installs the missing ones of `packages`, which `extra` holds."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} must be installed first: pip install 'kilonova[{extra}]'")
