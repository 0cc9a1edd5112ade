"""The typed form of a recipe that trains a segmenter."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from kilonova.core.errors import ConfigError, nearest
from kilonova.data.pictures.dolls import DollSource
from kilonova.data.pictures.sources import PictureSource
from kilonova.data.pictures.world import WorldSource
from kilonova.data.world.kinds import KINDS
from kilonova.train.pictures.recipe import ComponentSection
from kilonova.train.run_recipe import RunRecipe


@dataclass(frozen=True, kw_only=True)
class SegmentsSection:
    """What is looked at: `icons`, files of pictures with transparent parts below the folder `root`, whose captions are
    their names, `worlds` of drawn scenes and `dolls` in clothes.

    Kinds of things in `held_out_names` are never named in training; scenes of `unseen_worlds` are asked for just those.
    `sizes` are the widths and heights of a step's pictures in pixels, multiples of 16. Of each validation source the
    first `validation_pictures` are used. Pictures are drawn by so many `workers`, processes of their own; 0 for none.
    """

    root: str = "."
    sizes: tuple[tuple[int, int], ...] = ((128, 128),)
    icons: tuple[PictureSource, ...] = ()
    worlds: tuple[WorldSource, ...] = ()
    dolls: tuple[DollSource, ...] = ()
    held_out_names: tuple[str, ...] = ()
    validation_icons: tuple[PictureSource, ...] = ()
    validation_worlds: tuple[WorldSource, ...] = ()
    unseen_worlds: tuple[WorldSource, ...] = ()
    validation_dolls: tuple[DollSource, ...] = ()
    validation_pictures: int = 64
    workers: int = 0

    def __post_init__(self) -> None:
        if not self.icons and not self.worlds and not self.dolls:
            raise ConfigError("pictures.icons, pictures.worlds, pictures.dolls: at least one source is needed")
        if not self.sizes or any(side < 16 or side % 16 for size in self.sizes for side in size):
            raise ConfigError(f"pictures.sizes: {list(self.sizes)}: pairs of multiples of 16 are expected")
        if self.validation_pictures < 1:
            raise ConfigError("pictures.validation_pictures: must be at least 1")
        if self.workers < 0:
            raise ConfigError("pictures.workers: must be at least 0")
        for name in self.held_out_names:
            if name not in KINDS:
                raise ConfigError(f"pictures.held_out_names: no kind is called {name!r}; {nearest(name, KINDS)}")
        if self.unseen_worlds and not self.held_out_names:
            raise ConfigError("pictures.unseen_worlds: they are asked for held_out_names, of which there are none")


@dataclass(frozen=True, kw_only=True)
class SegmenterSection:
    """How a segmenter is trained.

    A fresh model needs `tokenizer`, a folder with a `tokenizer.json`, and may shape its `text_encoder` as in
    `config.json`. The weights are those of the loss's parts: whether queries fit texts, the cross-entropy and the dice
    loss of masks (as in arXiv 2112.01527, section 4.1), and the foreground. `ema_decay` is that of the average of
    weights.
    """

    tokenizer: str | None = None
    text_encoder: dict[str, Any] = field(default_factory=dict)
    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    foreground_weight: float = 5.0
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.ema_decay < 1:
            raise ConfigError("segmenter.ema_decay: must be at least 0 and less than 1")
        for name in ("class_weight", "mask_weight", "dice_weight", "foreground_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"segmenter.{name}: must be at least 0")


@dataclass(frozen=True, kw_only=True)
class SegmenterRecipe(RunRecipe):
    """One run of training a segmenter; `model.init_from` is a folder that such a run left."""

    objective: Literal["segmenter"]
    model: ComponentSection
    pictures: SegmentsSection
    segmenter: SegmenterSection = field(default_factory=SegmenterSection)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tensor", "context", "expert"):
            if getattr(self.parallel, name) != 1:
                raise ConfigError(f"parallel.{name}: models of pictures are trained by data parallelism alone; give 1")
        if self.model.init_from is None and self.segmenter.tokenizer is None:
            raise ConfigError("segmenter.tokenizer: a fresh model needs it")

    def order_of_data(self) -> str:
        pictures = self.pictures
        sources = [*map(asdict, pictures.icons), *map(asdict, pictures.worlds), *map(asdict, pictures.dolls)]
        return json.dumps([sources, pictures.held_out_names, pictures.sizes, self.batch_size, self.seed])
