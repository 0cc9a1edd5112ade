"""Drawn scenes as pictures with words."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kilonova.core.errors import ConfigError
from kilonova.data.world.captions import long_caption, short_caption
from kilonova.data.world.render import render
from kilonova.data.world.sampling import SceneConfig, sample_scene
from kilonova.data.world.scene import Scene


@dataclass(frozen=True, kw_only=True)
class WorldSource:
    """`scenes` scenes drawn by `seed`, of which `long_captions` are told at length and the others in a few words.

    Pictures are drawn from the sources in proportion to `weight` times their number.
    """

    name: str = "world"
    seed: int = 0
    scenes: int = 100_000
    sampling: SceneConfig = field(default_factory=SceneConfig)
    long_captions: float = 0.5
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ConfigError(f"source {self.name!r}: weight must be above 0")
        if self.scenes < 1:
            raise ConfigError(f"source {self.name!r}: scenes must be at least 1")
        if not 0 <= self.long_captions <= 1:
            raise ConfigError(f"source {self.name!r}: long_captions must be between 0 and 1")


class WorldPictures:
    """The pictures of a `WorldSource`, drawn at whatever size is asked for."""

    def __init__(self, source: WorldSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return self.source.scenes

    def scene(self, index: int) -> Scene:
        """The scene, the same for every call."""
        return sample_scene((self.source.seed, index), self.source.sampling)

    def whole(self, index: int, width: int, height: int, generator: np.random.Generator) -> tuple[np.ndarray, str]:
        """The picture, uint8 RGBA `[height, width, 4]`, and one of the ways to tell of it."""
        scene = self.scene(index)
        return render(scene, (width, height)).image, self.tell(scene, generator)

    view = whole

    def tell(self, scene: Scene, generator: np.random.Generator) -> str:
        """One of the ways to tell of a scene."""
        tell = long_caption if generator.random() < self.source.long_captions else short_caption
        return tell(scene, generator).text
