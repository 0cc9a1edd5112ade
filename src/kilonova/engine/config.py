"""What can be set of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from kilonova.core.errors import ConfigError

Quantization = Literal["int8", "int4"]


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Limits and methods of an engine; ConfigError for a limit below its least value.

    Up to `max_num_seqs` requests run, and up to `max_queue` more wait. `max_context` lowers the context below the
    model's own, and so does a cache that holds less: `kv_cache_bytes` limits it (see `KVCache` for the default). Of the
    adapters it knows, of a rank up to `max_lora_rank`, the engine holds the weights of at most `max_loras` at a time.
    `quantization` rounds the weights (`round_weights`). With `speculate` steps check guesses of the next tokens where
    that pays, which leaves the text as it is.
    """

    max_num_seqs: int = 32
    max_context: int | None = None
    max_queue: int = 256
    kv_cache_bytes: int | None = None
    max_loras: int = 16
    max_lora_rank: int = 64
    quantization: Quantization | None = None
    speculate: bool = True

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_context", "max_queue", "kv_cache_bytes", "max_loras", "max_lora_rank"):
            value, least = getattr(self, name), 0 if name == "max_queue" else 1
            if value is not None and value < least:
                raise ConfigError(f"{name}: must be at least {least}; it is {value}")
        if self.quantization not in (None, *get_args(Quantization)):
            raise ConfigError(f"quantization: {self.quantization!r} is not one of {', '.join(get_args(Quantization))}")
