"""Rotary settings of `config.json`, in the keys of transformers 4 (`rope_scaling`) and 5 (`rope_parameters`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from kilonova.core.errors import ConfigError
from kilonova.models.decoder.layouts import HfFields
from kilonova.nn.rotary import RotaryScaling

_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
_DEFAULT_THETA = 10_000.0


@dataclass(frozen=True, kw_only=True)
class _RopeFields:
    rope_theta: float | None = None
    rope_type: str | None = None
    type: str | None = None
    factor: float | None = None
    original_max_position_embeddings: int | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    partial_rotary_factor: float | None = None


def read_rope(fields: HfFields) -> tuple[float, RotaryScaling | None]:
    """The base frequency and the scaling; an unsupported `rope_type` is a `ConfigError` that names the allowed.

    A theta inside the rope mapping goes before the top-level one, and `rope_scaling` before `rope_parameters`, as in
    transformers 5.
    """
    key = "rope_scaling" if fields.rope_scaling else "rope_parameters"
    mapping = fields.rope_scaling or fields.rope_parameters or {}
    if any(isinstance(value, dict) for value in mapping.values()):
        raise ConfigError(f"{key}: settings by layer type are not supported; give one for all layers")
    try:
        rope = msgspec.convert(mapping, _RopeFields)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{key}: {error}") from error
    if rope.partial_rotary_factor not in (None, 1.0):
        raise ConfigError(f"{key}.partial_rotary_factor: {rope.partial_rotary_factor} is not supported; allowed: 1.0")
    theta = rope.rope_theta or fields.rope_theta or _DEFAULT_THETA
    return theta, _scaling(rope, fields, key)


def _scaling(rope: _RopeFields, fields: HfFields, key: str) -> RotaryScaling | None:
    rope_type = rope.rope_type or rope.type or "default"
    original = fields.original_max_position_embeddings or rope.original_max_position_embeddings
    factor = rope.factor
    if rope_type == "yarn" and factor is None and original is not None:
        factor = fields.max_position_embeddings / original
    if rope_type == "default":
        return None
    if rope_type not in _ROPE_TYPES:
        raise ConfigError(f"{key}.rope_type: {rope_type!r} is not supported; allowed: {', '.join(_ROPE_TYPES)}")
    if factor is None or factor <= 0:
        raise ConfigError(f"{key}.factor: a positive number is needed for rope_type {rope_type}, not {factor}")
    if rope_type == "linear":
        return RotaryScaling(rope_type="linear", factor=factor)
    if rope_type == "llama3":
        low, high = rope.low_freq_factor, rope.high_freq_factor
        if low is None or high is None or not 0 < low < high:
            raise ConfigError(f"{key}: llama3 needs 0 < low_freq_factor < high_freq_factor, not {low} and {high}")
        return RotaryScaling(
            rope_type="llama3",
            factor=factor,
            original_max_position_embeddings=original,
            low_freq_factor=low,
            high_freq_factor=high,
        )
    return RotaryScaling(
        rope_type="yarn",
        factor=factor,
        original_max_position_embeddings=original,
        beta_fast=rope.beta_fast or 32.0,
        beta_slow=rope.beta_slow or 1.0,
        attention_factor=rope.attention_factor,
        mscale=rope.mscale,
        mscale_all_dim=rope.mscale_all_dim,
        truncate=rope.truncate,
    )


def write_rope(theta: float, scaling: RotaryScaling | None) -> dict[str, Any]:
    """`rope_theta`, `rope_scaling` and `rope_parameters`, which say the same to readers of either generation."""
    if scaling is None:
        return {
            "rope_theta": theta,
            "rope_scaling": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        }
    names = {
        "linear": ("factor",),
        "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
        "yarn": (
            "factor",
            "original_max_position_embeddings",
            "beta_fast",
            "beta_slow",
            "attention_factor",
            "mscale",
            "mscale_all_dim",
            "truncate",
        ),
    }[scaling.rope_type]
    written = {name: getattr(scaling, name) for name in names if getattr(scaling, name) is not None}
    if written.get("truncate") is True:
        del written["truncate"]
    mapping = {"rope_type": scaling.rope_type, **written}
    return {"rope_theta": theta, "rope_scaling": mapping, "rope_parameters": {**mapping, "rope_theta": theta}}
