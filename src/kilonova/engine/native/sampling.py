"""The choice of tokens by the native kernels, as `kilonova.engine.sampling` defines it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kilonova.core.types import SamplingParams
from kilonova.engine.native.library import Context, Draw
from kilonova.engine.sampling import uniform


def sample(
    context: Context, logits: Tensor, params: Sequence[SamplingParams], draws: Sequence[tuple[int, int]]
) -> list[int]:
    """One token a row of float32 `logits` `[N, vocab]` on the CPU; arguments and result are those of `sampling.sample`.

    Sums are made in another order there: a number that falls within rounding of the edge between two tokens may choose
    the other one.
    """
    logits = logits.contiguous()
    numbers = [
        Draw(uniform(*draw) if one.temperature > 0 else 0.0, one.top_p, one.temperature, one.top_k)
        for one, draw in zip(params, draws, strict=True)
    ]
    return context.choose(logits.data_ptr(), len(logits), logits.shape[1], numbers, torch.get_num_threads())
