"""The typed form of a recipe that trains a model of pictures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from kilonova.core.errors import ConfigError
from kilonova.data.pictures.dolls import DollSource
from kilonova.data.pictures.examples import ConditionsSection
from kilonova.data.pictures.sources import PictureSource
from kilonova.data.pictures.world import WorldSource
from kilonova.train.run_recipe import RunRecipe


@dataclass(frozen=True, kw_only=True)
class ComponentSection:
    """Where the weights begin: a folder, or fresh ones of a shape given as in `config.json`.

    For an autoencoder it is the component's own; for a flow `init_from` is a whole folder, with its `model_index.json`,
    and `config` the shape of the backbone, whose `_class_name` says which.
    """

    init_from: str | None = None
    config: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if (self.init_from is None) == (self.config is None):
            raise ConfigError("model: give exactly one of init_from (a folder) and config (a fresh shape)")


@dataclass(frozen=True, kw_only=True)
class PicturesSection:
    """What is looked at: `sources` of files, below the folder `root`, `worlds` of drawn scenes, and `dolls`.

    `sizes` are the widths and heights of a step's pictures in pixels, multiples of 8. Of each validation source the
    first `validation_pictures` are used.
    """

    root: str = "."
    sizes: tuple[tuple[int, int], ...] = ((128, 128),)
    sources: tuple[PictureSource, ...] = ()
    worlds: tuple[WorldSource, ...] = ()
    dolls: tuple[DollSource, ...] = ()
    validation: tuple[PictureSource, ...] = ()
    validation_worlds: tuple[WorldSource, ...] = ()
    validation_pictures: int = 128

    def __post_init__(self) -> None:
        if not self.sources and not self.worlds and not self.dolls:
            raise ConfigError("pictures.sources, pictures.worlds, pictures.dolls: at least one source is needed")
        if not self.sizes or any(side < 8 or side % 8 for size in self.sizes for side in size):
            raise ConfigError(f"pictures.sizes: {list(self.sizes)}: pairs of multiples of 8 are expected")
        if self.validation_pictures < 1:
            raise ConfigError("pictures.validation_pictures: must be at least 1")


@dataclass(frozen=True, kw_only=True)
class AutoencoderSection:
    """The loss of a reconstruction: the absolute error over black and over white, and beside it

    `gradient_weight` times the error of differences between neighbouring pixels, at three scales, which keeps edges
    sharp, and `latent_weight` times the mean square of the latents, which keeps them small.
    """

    gradient_weight: float = 1.0
    latent_weight: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class FlowSection:
    """How a flow is trained.

    A fresh model needs `autoencoder`, the folder of one that has the statistics of its latents, `tokenizer`, a folder
    with a `tokenizer.json`, and may shape its `text_encoder` as in `config.json`. `text_dropout` of the captions are
    left out, for guidance. Times are logit-normal with `timestep_mean` and `timestep_std`, shifted by `timestep_shift`,
    and further for sizes beyond the first. `ema_decay` is that of the average of weights.

    `conditions` are what pictures are made from beside words. `shortcut` of the pictures teach large steps (arXiv
    2410.12557), for a backbone whose `step_size_embeds` is set. With `views`, a multiple of the number of sizes, each
    picture is seen in so many ways, and not in another one every time, as many at each size; then their latents can be
    kept in the folder `cache`. `sampling` is what the result's `scheduler_config.json` says, as in
    `studio.settings.SamplingSettings`, beyond `base_tokens`, `sizes` and `few_step`, which follow from the recipe.
    """

    autoencoder: str | None = None
    tokenizer: str | None = None
    text_encoder: dict[str, Any] = field(default_factory=dict)
    text_dropout: float = 0.1
    timestep_mean: float = 0.0
    timestep_std: float = 1.0
    timestep_shift: float = 1.0
    ema_decay: float = 0.999
    conditions: ConditionsSection = field(default_factory=ConditionsSection)
    shortcut: float = 0.0
    views: int | None = None
    cache: str | None = None
    sampling: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.views is not None and self.views < 1:
            raise ConfigError("flow.views: must be at least 1")
        if self.cache is not None and self.views is None:
            raise ConfigError("flow.cache: only a number of flow.views can be kept; give it")
        for name in ("text_dropout", "ema_decay", "shortcut"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"flow.{name}: must be at least 0 and less than 1")
        if not self.timestep_shift > 0 or not self.timestep_std > 0:
            raise ConfigError("flow.timestep_shift, flow.timestep_std: must be above 0")


@dataclass(frozen=True, kw_only=True)
class ClassifierSection:
    """Which `columns` of files a fresh classifier learns, beside the attributes of drawn scenes."""

    columns: tuple[str, ...] = ("style", "group", "name")


@dataclass(frozen=True, kw_only=True)
class PictureRecipe(RunRecipe):
    """One run of training a model of pictures."""

    objective: Literal["autoencoder", "flow", "classifier"]
    model: ComponentSection
    pictures: PicturesSection
    autoencoder: AutoencoderSection = field(default_factory=AutoencoderSection)
    flow: FlowSection = field(default_factory=FlowSection)
    classifier: ClassifierSection = field(default_factory=ClassifierSection)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tensor", "context", "expert"):
            if getattr(self.parallel, name) != 1:
                raise ConfigError(f"parallel.{name}: models of pictures are trained by data parallelism alone; give 1")
        if self.flow.views is not None and self.flow.views % len(self.pictures.sizes):
            raise ConfigError(f"flow.views: {self.flow.views} is not a multiple of {len(self.pictures.sizes)} sizes")
        if self.objective == "flow" and self.model.init_from is None:
            for name in ("autoencoder", "tokenizer"):
                if getattr(self.flow, name) is None:
                    raise ConfigError(f"flow.{name}: a fresh model needs it")

    def order_of_data(self) -> str:
        pictures = self.pictures
        sources = [(source.path, source.where, source.captions, source.weight) for source in pictures.sources]
        worlds = [asdict(world) for world in pictures.worlds]
        order: list[Any] = [self.objective, sources, worlds, pictures.sizes, self.batch_size, self.seed]
        if self.objective == "flow":
            flow = self.flow
            order += [[asdict(doll) for doll in pictures.dolls], asdict(flow.conditions), flow.shortcut, flow.views]
        return json.dumps(order)
