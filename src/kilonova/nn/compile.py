"""Compilation that is paid for when it is used."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def compile_lazily(function: Callable[P, R], *, dynamic: bool | None = None) -> Callable[P, R]:
    """`torch.compile(function)` at the first call, as importing the compiler takes as long as all else in a start."""

    @functools.cache
    def compiled() -> Callable[P, R]:
        return torch.compile(function, dynamic=dynamic)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return compiled()(*args, **kwargs)

    return call
