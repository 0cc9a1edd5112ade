"""What the configurations of picture models have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import msgspec

from kilonova.core.config import parse_config
from kilonova.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ComponentConfig:
    """A configuration that a `config.json` holds, key by key."""

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Self:
        """Read a parsed `config.json`; ConfigError for an unknown key, a mistyped value or an impossible size.

        Keys that begin with an underscore, such as diffusers' `_class_name`, are not the network's and are passed over.
        """
        return parse_config(cls, {key: value for key, value in mapping.items() if not key.startswith("_")})

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads back as the same."""
        return msgspec.to_builtins(self)

    def _require_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not all(item >= 1 for item in (value if isinstance(value, tuple) else (value,))):
                raise ConfigError(f"{name}: {value} is less than 1")

    def _require_multiple(self, name: str, divisor: int, reason: str) -> None:
        value = getattr(self, name)
        if not all(item % divisor == 0 for item in (value if isinstance(value, tuple) else (value,))):
            raise ConfigError(f"{name}: {value} is not a multiple of {divisor}, {reason}")
