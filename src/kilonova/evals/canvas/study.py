"""What the parts of an evaluation share: the model that draws, and what looks at its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np

from kilonova.core.progress import ProgressReporter
from kilonova.evals.canvas.attributes import Attributes
from kilonova.evals.canvas.gallery import Gallery
from kilonova.evals.canvas.icons import IconSet
from kilonova.evals.canvas.recogniser import Recogniser
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.studio.segmentation import Segmenter
from kilonova.studio.tasks import ImageRequest, ImageResult, ImageTask, TextToImage

T = TypeVar("T")


class Painter(Protocol):
    """What makes pictures: a `Canvas`, or whatever answers as it does."""

    def generate(
        self, request: ImageRequest, on_step: Callable[[int, int], bool | None] | None = None
    ) -> ImageResult: ...


@dataclass(frozen=True, kw_only=True)
class Study:
    """A model to measure, and with what; parts for which something is None are left out.

    Of each part at most `limit` pictures are drawn, squares of `size` pixels, the one number i with seed `seed` + i.
    """

    canvas: Painter
    size: int = 128
    limit: int = 100
    seed: int = 0
    cfg_scale: float = 6.5
    num_inference_steps: int | None = None
    segmenter: Segmenter | None = None
    attributes: Attributes | None = None
    icons: IconSet | None = None
    autoencoder: ImageAutoencoder | None = None
    gallery: Gallery = field(default_factory=Gallery)
    quiet: bool = False

    @cached_property
    def recogniser(self) -> Recogniser:
        """Sees things and their looks."""
        assert self.segmenter is not None
        assert self.attributes is not None
        return Recogniser(self.segmenter, self.attributes)

    @cached_property
    def icon_pictures(self) -> list[np.ndarray]:
        """A picture for the caption of each held-back picture of files."""
        assert self.icons is not None
        taken = self.icons.held_back[: self.limit]
        return [self.draw(TextToImage(text=icon.caption), i) for i, icon in enumerate(self.track("icons", taken))]

    def draw(self, task: ImageTask, index: int) -> np.ndarray:
        """Picture number `index` of a part; edits come at the size of what they edit."""
        request = ImageRequest(
            task=task,
            width=self.size,
            height=self.size,
            seed=self.seed + index,
            cfg_scale=self.cfg_scale,
            num_inference_steps=self.num_inference_steps,
        )
        return self.canvas.generate(request).images[0]

    def track(self, part: str, items: Sequence[T]) -> Iterator[T]:
        """The items one by one, with progress shown."""
        with ProgressReporter(f"measure {part}: pictures", len(items), quiet=self.quiet) as progress:
            for number, item in enumerate(items, start=1):
                yield item
                progress.update(number)
