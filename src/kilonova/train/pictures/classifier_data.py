"""Pictures whose attributes are known: those of files by their columns, drawn scenes and the things in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kilonova.core.errors import DataError
from kilonova.data.mixture import MixtureSampler, mixture_probabilities
from kilonova.data.pictures.placement import over_colour, place
from kilonova.data.pictures.sources import ParquetPictures
from kilonova.data.pictures.world import WorldPictures
from kilonova.data.world.colours import BACKGROUND_COLOURS, COLOURS
from kilonova.data.world.kinds import TEXTURES
from kilonova.data.world.render import Rendered, render
from kilonova.data.world.sampling import WORDS
from kilonova.data.world.scene import BACKGROUNDS, COLOURED_BACKGROUNDS, Background, Scene
from kilonova.data.world.wording import background_name
from kilonova.models.classifier.pictures import cut_out, to_tensor

NO_WORD = "none"
NO_LABEL = -1
# Things of fewer visible pixels tell too little of their texture.
_LEAST_PIXELS = 40

Labels = Mapping[str, str]


def world_heads() -> dict[str, tuple[str, ...]]:
    """The attributes of drawn scenes: a thing's texture, and a picture's background, word and colour of letters."""
    backgrounds = [
        background_name(Background(kind, colour))
        for kind in BACKGROUNDS
        for colour in (BACKGROUND_COLOURS if kind in COLOURED_BACKGROUNDS else [None])
    ]
    return {"texture": TEXTURES, "background": tuple(backgrounds), "word": (NO_WORD, *WORDS), "letters": tuple(COLOURS)}


@dataclass(frozen=True)
class LabelledBatch:
    """`pictures` float32 `[B, 3, S, S]` in [-1, 1], and for each attribute the numbers of their values, int64 `[B]`,
    -1 where a picture has none."""

    pictures: Tensor
    labels: dict[str, Tensor]


class LabelledFiles:
    """Pictures of files, with the values of `columns` as their attributes."""

    def __init__(self, pictures: ParquetPictures, columns: Sequence[str]) -> None:
        for name in columns:
            if name not in pictures.fields(0):
                raise DataError(f"source {pictures.source.name!r} has no column {name!r} (classifier.columns)")
        self.source = pictures.source
        self._pictures, self._columns = pictures, columns

    def __len__(self) -> int:
        return len(self._pictures)

    def labels(self, index: int) -> dict[str, str]:
        return {name: self._pictures.fields(index)[name] for name in self._columns}

    def view(self, index: int, size: int, generator: np.random.Generator | None) -> tuple[np.ndarray, Labels]:
        """A picture uint8 RGBA and its attributes; with a `generator`, at a random place and half of the time before a
        random colour."""
        picture = place(self._pictures.picture(index), size, size, generator)
        return _before_a_colour(picture, generator), self.labels(index)


class LabelledScenes:
    """Drawn scenes, whole or one thing of them; those with a word are always whole."""

    def __init__(self, pictures: WorldPictures) -> None:
        self.source = pictures.source
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def view(self, index: int, size: int, generator: np.random.Generator | None) -> tuple[np.ndarray, Labels]:
        """A picture uint8 RGBA and its attributes; with a `generator`, borders of things are inexact as found ones."""
        scene = self._pictures.scene(index)
        drawn = render(scene, 2 * size)
        visible = [number for number, mask in enumerate(drawn.masks) if mask.sum() >= _LEAST_PIXELS]
        if scene.text is None and visible and index % 2:
            number = visible[index // 2 % len(visible)]
            return _thing(drawn, number, generator), {"texture": scene.objects[number].texture}
        return drawn.image, _scene_labels(scene)


LabelledSource = LabelledFiles | LabelledScenes


class LabelledBatches:
    """The micro-batches of every step for one of `num_ranks` ranks, a function of seed and step alone."""

    def __init__(
        self,
        sources: Sequence[LabelledSource],
        heads: Mapping[str, Sequence[str]],
        image_size: int,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self._sources, self._heads, self._image_size = sources, heads, image_size
        self._batch_size, self._micro_batch_size, self._seed = batch_size, micro_batch_size, seed
        self._share = slice(rank, None, num_ranks)
        counts = [len(source) for source in sources]
        self._starts = np.cumsum([0, *counts])
        probabilities = mixture_probabilities(counts, [source.source.weight for source in sources], temperature=1.0)
        self._sampler = MixtureSampler(counts, probabilities, batch_size, seed)

    def __call__(self, step: int) -> list[LabelledBatch]:
        first = step * self._batch_size
        places = list(enumerate(self._sampler.indices(step), start=first))[self._share]
        views = [self._view(row, position) for position, row in places]
        size = self._micro_batch_size
        parts = [views[start : start + size] for start in range(0, len(views), size)]
        return [to_batch(part, self._heads, self._image_size) for part in parts]

    def _view(self, row: int, position: int) -> tuple[np.ndarray, Labels]:
        generator = np.random.default_rng([self._seed, 1, position])
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._sources[number].view(row - int(self._starts[number]), self._image_size, generator)


def to_batch(
    views: Sequence[tuple[np.ndarray, Labels]], heads: Mapping[str, Sequence[str]], image_size: int
) -> LabelledBatch:
    """Pictures with their attributes as a batch; a value that `heads` does not know counts as none."""
    numbers = {name: {value: number for number, value in enumerate(values)} for name, values in heads.items()}
    labels = {
        name: torch.tensor([known.get(labels.get(name, ""), NO_LABEL) for _, labels in views])
        for name, known in numbers.items()
    }
    return LabelledBatch(to_tensor([picture for picture, _ in views], image_size), labels)


def _before_a_colour(picture: np.ndarray, generator: np.random.Generator | None) -> np.ndarray:
    if generator is None or generator.random() < 0.5:
        return picture
    red, green, blue = generator.integers(256, size=3).tolist()
    return over_colour(picture, (red, green, blue))


def _thing(drawn: Rendered, number: int, generator: np.random.Generator | None) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    mask = drawn.masks[number]
    if generator is not None and (grown := int(generator.integers(4))):
        mask = binary_dilation(mask, iterations=grown)
    return cut_out(drawn.image, mask)


def _scene_labels(scene: Scene) -> Labels:
    labels = {"background": background_name(scene.background), "word": NO_WORD}
    return labels if scene.text is None else labels | {"word": scene.text.word, "letters": scene.text.colour}
