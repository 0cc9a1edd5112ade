"""The compiled library of CPU kernels: its structures, its contexts, and whether it is there at all.

The library is built when the package is installed, if a C++ compiler for x86-64 is at hand. It speaks plain C and knows
nothing of Python or PyTorch. `csrc/model.h` says what its structures mean.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

from kilonova.core.errors import EngineError

logger = logging.getLogger(__name__)

_ABI = 3
KINDS = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3}


class Linear(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p),
        ("scales", c_void_p),
        ("bias", c_void_p),
        ("in_features", c_int64),
        ("out_features", c_int64),
        ("kind", c_int32),
        ("group_size", c_int32),
    )


class Layer(ctypes.Structure):
    _fields_ = (
        ("input_norm", c_void_p),
        ("mlp_norm", c_void_p),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("qkv", Linear),
        ("output", Linear),
        ("gate_up", Linear),
        ("down", Linear),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("window", c_int32),
        ("table", c_int32),
    )


class LowRankRows(ctypes.Structure):
    _fields_ = (("b", c_void_p), ("first", c_int64), ("last", c_int64))


class LowRank(ctypes.Structure):
    _fields_ = (
        ("a", Linear),
        ("rank", c_int64),
        ("parts", LowRankRows * 3),
        ("num_parts", c_int32),
        ("interleaved", c_int32),
    )


class Model(ctypes.Structure):
    _fields_ = (
        ("hidden_size", c_int64),
        ("intermediate_size", c_int64),
        ("num_heads", c_int64),
        ("num_kv_heads", c_int64),
        ("head_dim", c_int64),
        ("num_layers", c_int64),
        ("block_size", c_int64),
        ("eps", c_float),
        ("cache_kind", c_int32),
        ("layers", POINTER(Layer)),
        ("embedding", Linear),
        ("final_norm", c_void_p),
    )


class Batch(ctypes.Structure):
    _fields_ = (
        ("num_tokens", c_int64),
        ("token_ids", c_void_p),
        ("positions", c_void_p),
        ("rotary", c_void_p),
        ("slots", c_void_p),
        ("tables", POINTER(c_void_p)),
        ("table_stride", c_int64),
        ("adapters", c_void_p),
        ("low_rank", POINTER(c_void_p)),
        ("max_rank", c_int64),
        ("hidden", c_void_p),
    )


class Draw(ctypes.Structure):
    _fields_ = (("uniform", c_double), ("top_p", c_double), ("temperature", c_float), ("top_k", c_int32))


@cache
def load() -> ctypes.CDLL | None:
    """The library, or None where it was not built or belongs to another version of the package."""
    for path in sorted(Path(__file__).parent.glob("_kernels*.so")):
        try:
            library = ctypes.CDLL(str(path))
            abi = library.kilonova_abi()
        except (OSError, AttributeError) as error:
            logger.warning("%s cannot be loaded: %s", path.name, error)
            continue
        if abi == _ABI:
            return _declare(library)
        logger.warning("%s is of another version; install the package again to build it anew", path.name)
    return None


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    declarations = {
        "instructions": ((c_int,), c_char_p),
        "create": ((c_char_p,), c_void_p),
        "destroy": ((c_void_p,), None),
        "lanes": ((c_void_p,), c_int),
        "decode": ((c_void_p, POINTER(Model), POINTER(Batch), c_int), c_int),
        "multiply": ((c_void_p, POINTER(Linear), c_void_p, c_int64, c_void_p, c_int), c_int),
        "expand": ((c_void_p, POINTER(Linear), c_void_p, c_int, c_int), c_int),
        "choose": ((c_void_p, c_void_p, c_int64, c_int64, POINTER(Draw), POINTER(c_int32), c_int), c_int),
        "pointwise": ((c_void_p, c_void_p, c_void_p, c_float, c_int64, c_int64, c_void_p, c_int), None),
        "sweep": ((c_void_p, c_void_p, c_int64, c_int), c_float),
        "advise": ((c_void_p, c_int64), None),
    }
    for name, (arguments, result) in declarations.items():
        function = getattr(library, f"kilonova_{name}")
        function.argtypes, function.restype = arguments, result
    return library


def instruction_sets() -> tuple[str, ...]:
    """Names of the instruction sets that library and machine both have, best first; empty without a library."""
    library = load()
    names: list[str] = []
    while library is not None and (name := library.kilonova_instructions(len(names))) is not None:
        names.append(name.decode())
    return tuple(names)


class Context:
    """Threads and working memory of one user of the library. Raises EngineError for an absent instruction set."""

    def __init__(self, instructions: str | None = None) -> None:
        available = instruction_sets()
        library = load()
        if library is None or not available or (instructions or available[0]) not in available:
            raise EngineError(f"no native kernels for {instructions or 'this machine'}; available: {available}")
        self.instructions = instructions or available[0]
        self.library = library
        self._handle = c_void_p(library.kilonova_create(self.instructions.encode()))
        self.lanes: int = library.kilonova_lanes(self._handle)

    def __del__(self) -> None:
        if handle := getattr(self, "_handle", None):
            self.library.kilonova_destroy(handle)

    def decode(self, model: Model, batch: Batch, num_threads: int) -> None:
        """Run one step."""
        if self.library.kilonova_decode(self._handle, ctypes.byref(model), ctypes.byref(batch), num_threads):
            raise MemoryError("no memory for a step of the native kernels")

    def multiply(self, weights: Linear, x: int, tokens: int, y: int, num_threads: int) -> None:
        """`y = W x + bias` for `tokens` rows of float32 at the addresses `x` and `y`."""
        if self.library.kilonova_multiply(self._handle, ctypes.byref(weights), x, tokens, y, num_threads):
            raise MemoryError("no memory for a product of the native kernels")

    def expand(self, weights: Linear, y: int, bfloat16: bool, num_threads: int) -> None:
        """The numbers that integer weights stand for, `[out, in]` in float32 or bfloat16 at the address `y`."""
        if self.library.kilonova_expand(self._handle, ctypes.byref(weights), y, bfloat16, num_threads):
            raise MemoryError("no memory to expand weights")

    def pointwise(self, x: int, weight: int | None, eps: float, rows: int, size: int, y: int, num_threads: int) -> None:
        """The norm of each row of float32, or without a weight `silu(gate) * up` where these lie in turn."""
        self.library.kilonova_pointwise(self._handle, x, weight, eps, rows, size, y, num_threads)

    def choose(self, logits: int, rows: int, vocab_size: int, draws: Sequence[Draw], num_threads: int) -> list[int]:
        """A token for each row of float32 logits at the address `logits`; -1 where they are not finite."""
        tokens = (c_int32 * rows)()
        numbers = (Draw * rows)(*draws)
        if self.library.kilonova_choose(self._handle, logits, rows, vocab_size, numbers, tokens, num_threads):
            raise MemoryError("no memory to choose tokens")
        return list(tokens)

    def sweep(self, data: int, count: int, num_threads: int) -> float:
        """Read `count` floats at the address `data` once."""
        return float(self.library.kilonova_sweep(self._handle, data, count, num_threads))
