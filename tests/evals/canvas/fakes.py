"""A model that draws the scene it is asked for, or another, and eyes that know every picture it has drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from kilonova.data.world.colours import BACKGROUND_COLOURS, COLOURS
from kilonova.data.world.kinds import TEXTURES
from kilonova.data.world.render import Rendered, render
from kilonova.data.world.sampling import WORDS
from kilonova.data.world.scene import BACKGROUNDS, COLOURED_BACKGROUNDS, Background, Scene
from kilonova.data.world.wording import background_name
from kilonova.models.classifier.pictures import cut_out
from kilonova.studio.segmentation import Segment
from kilonova.studio.tasks import (
    ColorGuidedGeneration,
    ImageRequest,
    ImageResult,
    Inpainting,
    Outpainting,
    TextToImage,
)

SIZE = 128
_BACKGROUNDS = tuple(
    background_name(Background(kind, colour))
    for kind in BACKGROUNDS
    for colour in (BACKGROUND_COLOURS if kind in COLOURED_BACKGROUNDS else [None])
)


class Eyes:
    """Remembers drawn scenes: a `Segmenter` and `Attributes` that see exactly what is in their pictures."""

    heads: Mapping[str, tuple[str, ...]] = {
        "texture": TEXTURES,
        "background": _BACKGROUNDS,
        "word": ("none", *WORDS),
        "letters": tuple(COLOURS),
    }

    def __init__(self) -> None:
        self._scenes: dict[bytes, tuple[Scene, Rendered]] = {}
        self._textures: dict[bytes, str] = {}

    def remember(self, scene: Scene, size: int = SIZE) -> np.ndarray:
        """The picture of a scene, uint8 `[H, W, 3]`."""
        drawn = render(scene, size)
        picture = np.ascontiguousarray(drawn.image[..., :3])
        self._scenes[picture.tobytes()] = scene, drawn
        for thing, mask in zip(scene.objects, drawn.masks, strict=True):
            if mask.any():
                self._textures[cut_out(picture, mask).tobytes()] = thing.texture
        return picture

    def instances(self, picture: np.ndarray, names: Sequence[str]) -> list[Segment]:
        scene, drawn = self._scenes.get(picture.tobytes(), (Scene(()), None))
        masks = [] if drawn is None else drawn.masks
        return [Segment(one.kind, 1.0, mask) for one, mask in zip(scene.objects, masks, strict=True) if mask.any()]

    def semantic(self, picture: np.ndarray, names: Sequence[str]) -> np.ndarray:
        answer = np.full(picture.shape[:2], -1, np.int64)
        for segment in self.instances(picture, names):
            if segment.name in names:
                answer[segment.mask] = list(names).index(segment.name)
        return answer

    def foreground(self, picture: np.ndarray) -> np.ndarray:
        return (self.semantic(picture, [one.name for one in self.instances(picture, ())]) >= 0).astype(np.float32)

    def refer(self, picture: np.ndarray, phrase: str) -> np.ndarray:
        return (self.semantic(picture, [phrase]) == 0).astype(np.float32)

    def probabilities(self, name: str, pictures: Sequence[np.ndarray]) -> np.ndarray:
        values = self.heads[name]
        rows = np.zeros((len(pictures), len(values)))
        for row, picture in zip(rows, pictures, strict=True):
            row[values.index(self._tell(name, picture))] = 1
        return rows

    def features(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([picture[..., :3].reshape(-1, 3).mean(0) for picture in pictures]).astype(np.float64)

    def _tell(self, name: str, picture: np.ndarray) -> str:
        if name == "texture":
            return self._textures[picture.tobytes()]
        scene, _ = self._scenes[picture.tobytes()]
        if name == "background":
            return background_name(scene.background)
        if scene.text is None:
            return {"word": "none", "letters": "black"}[name]
        return {"word": scene.text.word, "letters": scene.text.colour}[name]


class SceneCanvas:
    """Draws the scene that each text tells of, as `change` alters it, and edits by painting what it is asked for."""

    def __init__(
        self, scenes: Mapping[str, Scene], eyes: Eyes, change: Callable[[Scene], Scene] = lambda scene: scene
    ) -> None:
        self._scenes, self._eyes, self._change = scenes, eyes, change
        self.requests: list[ImageRequest] = []

    def generate(self, request: ImageRequest, on_step: object = None) -> ImageResult:
        self.requests.append(request)
        task = request.task
        if isinstance(task, Inpainting | Outpainting):
            picture = np.where(np.asarray(task.mask)[..., None], np.uint8(90), task.image)
        elif isinstance(task, ColorGuidedGeneration):
            picture = np.zeros((SIZE, SIZE, 3), np.uint8)
            for index, column in enumerate(np.array_split(np.arange(SIZE), len(task.colors))):
                picture[:, column] = task.colors[index]
        else:
            assert isinstance(task, TextToImage)
            picture = self._eyes.remember(self._change(self._scenes[task.text]))
        return ImageResult(images=(picture,), native_size=(SIZE, SIZE), num_inference_steps=1, seed=request.seed)


def recoloured(scene: Scene) -> Scene:
    """A scene with every thing in the colour after its own."""
    names = list(COLOURS)
    things = [replace(one, colour=names[(names.index(one.colour) + 1) % len(names)]) for one in scene.objects]
    return replace(scene, objects=tuple(things))
