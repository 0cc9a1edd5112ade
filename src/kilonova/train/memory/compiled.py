"""What a compiled graph keeps of a layer.

A compiler sees through the functions of this package: it finds that what they rebuild was there before, and keeps that
instead. So in a compiled graph the parts of a layer are also regions of selective checkpointing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

R = TypeVar("R")

_aten = torch.ops.aten
_GEMMS = {_aten.mm.default, _aten.addmm.default}
_VIEWS = {_aten.view.default, _aten._unsafe_view.default}


def keep_gemms(
    function: Callable[..., R], *args: Any, recomputed: int | None = None, free_from: int | None = None
) -> R:
    """`function(*args)`, of which a compiled graph keeps the results of GEMMs and attention only.

    GEMMs are counted from 0: the result of `recomputed` is not kept either, and what follows the first `free_from` of
    them is left to the compiler, which looks for the smallest set of tensors. In eager mode it is just the call.
    """
    if not torch.compiler.is_compiling():
        return function(*args)
    contexts = functools.partial(_contexts, recomputed, free_from)
    return checkpoint(function, *args, use_reentrant=False, context_fn=contexts)


def _contexts(recomputed: int | None, free_from: int | None) -> Any:
    gemms = 0

    def policy(_context: Any, operation: Any, *_args: Any, **kwargs: Any) -> CheckpointPolicy:
        nonlocal gemms
        if operation in _GEMMS:
            gemms += 1
            return CheckpointPolicy.PREFER_RECOMPUTE if gemms - 1 == recomputed else CheckpointPolicy.MUST_SAVE
        if "attention" in str(operation):
            return CheckpointPolicy.MUST_SAVE
        # A view that had to be made again would have its GEMM's result kept, even where less would do.
        free = operation in _VIEWS or (free_from is not None and gemms >= free_from)
        weight_cast = operation is _aten._to_copy.default and kwargs.get("dtype") is not torch.int8
        return CheckpointPolicy.PREFER_SAVE if free and not weight_cast else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)
