"""What draws, whichever networks it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from kilonova.studio.drawing import Drawing
from kilonova.studio.settings import SamplingSettings

OnStep = Callable[[int, int], bool | None]


class Painter(Protocol):
    """Makes pictures of a `Drawing`, at the sizes of its `settings`."""

    @property
    def settings(self) -> SamplingSettings:
        """Sizes, styles and numbers of steps."""
        ...

    def paint(
        self, drawing: Drawing, seeds: Sequence[int], cfg_scale: float, steps: int, on_step: OnStep | None = None
    ) -> list[np.ndarray]:
        """A picture uint8 `[height, width, 3]` of the drawing's size for each of `seeds`, in `steps` steps.

        `on_step(done, total)` is called after each step; its answer False raises Cancelled. InvalidRequest for what
        the model has no way to do.
        """
        ...
