"""One picture that shows every task of a model that makes pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation

from kilonova.core.errors import InvalidRequest
from kilonova.data.pictures.edges import canny_edges
from kilonova.data.pictures.regions import paint_regions
from kilonova.data.pictures.things import region_numbers
from kilonova.data.world.dolls import RenderedDoll, render_doll, render_garment
from kilonova.data.world.dolls_sampling import sample_doll, sample_garment
from kilonova.data.world.render import Rendered, render
from kilonova.data.world.scene import Background, Pose, Scene, SceneObject
from kilonova.evals.canvas.adherence import swatches
from kilonova.evals.canvas.gallery import paste, wrapped
from kilonova.evals.canvas.study import Painter
from kilonova.models.condition import ControlType
from kilonova.studio.tasks import (
    BackgroundRemoval,
    ColorGuidedGeneration,
    Control,
    GarmentMask,
    ImageRequest,
    ImageTask,
    ImageVariation,
    Inpainting,
    Outpainting,
    OutpaintingMode,
    Style,
    TextToImage,
    VirtualTryOn,
)

Entry = tuple[str, np.ndarray]

PROMPTS = (
    "glossy 3D emoji of red apple",
    "rounded emoji of owl",
    "flat emoji of sailboat",
    "outlined emoji of birthday cake",
    "glossy 3D emoji of rocket",
    "a shiny red castle in a green meadow under a blue sky",
    "three yellow stars and a blue fish on a light pink background",
    "a striped orange cat under a starry night sky",
)
_SURROUNDINGS: tuple[tuple[str, OutpaintingMode], ...] = (
    ("a fish on a sandy beach by the sea", "PRECISE"),
    ("a fish at sunset", "PRECISE"),
    ("a fish under a starry night sky", "PRECISE"),
    ("a fish in a room with light blue walls", "DEFAULT"),
    ("a fish in a snowy landscape", "DEFAULT"),
    ("a fish on a dark blue checkered background", "DEFAULT"),
)
_COLUMNS = 8
_MARGIN = 14
_TITLE_SIZE, _LABEL_SIZE = 20, 13
_LABEL_LINES = 3
_HOUSE = Scene(
    (
        SceneObject("house", "red", "plain", "large", Pose(0.36, 0.6, 0.24)),
        SceneObject("tree", "green", "plain", "medium", Pose(0.76, 0.62, 0.19)),
    ),
    Background("meadow", None, 0.6),
)
_FISH = Scene((SceneObject("fish", "orange", "striped", "large", Pose(0.5, 0.5, 0.3)),), Background("plain", "white"))


@dataclass(frozen=True)
class Tour:
    """Draws each task several times, as squares of `size` pixels."""

    canvas: Painter
    size: int = 192
    seed: int = 7
    cfg_scale: float = 6.5
    num_inference_steps: int | None = None

    def sheet(self) -> Image.Image:
        """All tasks, one below the other; a task that this model does not do says so."""
        sections = {
            "Pictures from words": self._from_words,
            "A castle in every style": self._styles,
            "Along the edges of a picture": self._edges,
            "Along regions": self._regions,
            "In given colours": self._colours,
            "Variations of pictures": self._variations,
            "A part made anew": self._inpainting,
            "New surroundings": self._outpainting,
            "Without background": self._without_background,
            "Virtual try-on": self._try_on,
        }
        return lay_out({title: list(self._tried(section)) for title, section in sections.items()}, self.size)

    def _tried(self, section: Callable[[], Iterator[Entry]]) -> Iterator[Entry]:
        try:
            yield from section()
        except InvalidRequest as error:
            yield f"not with this model: {error}", np.full((self.size, self.size, 3), 236, np.uint8)

    def _draw(self, task: ImageTask, number: int = 0) -> np.ndarray:
        request = ImageRequest(
            task=task,
            width=self.size,
            height=self.size,
            seed=self.seed + number,
            cfg_scale=self.cfg_scale,
            num_inference_steps=self.num_inference_steps,
        )
        return self.canvas.generate(request).images[0]

    def _from_words(self) -> Iterator[Entry]:
        for number, text in enumerate(PROMPTS):
            yield text, self._draw(TextToImage(text=text), number)

    def _styles(self) -> Iterator[Entry]:
        for style in get_args(Style):
            yield style.replace("_", " ").lower(), self._draw(TextToImage(text="a castle", style=style))

    def _edges(self) -> Iterator[Entry]:
        picture = self._picture(_HOUSE)
        yield "the picture", picture
        yield "its edges", canny_edges(picture)
        for text, strength in (
            ("a house and a tree", 0.3),
            ("a house and a tree", 0.7),
            ("a house and a tree", 1.0),
            ("a white house and a pink tree in the snow", 1.0),
            ("a yellow house and a purple tree at sunset", 1.0),
            ("a shiny blue castle and a red balloon", 0.7),
        ):
            control = Control(picture=picture, type=ControlType.CANNY_EDGE, strength=strength)
            yield f"{text}, strength {strength}", self._draw(TextToImage(text=text, control=control))

    def _regions(self) -> Iterator[Entry]:
        for scene, texts in (
            (_HOUSE, ("a red house and a tree in a meadow", "a blue house in the snow", "a castle at sunset")),
            (_FISH, ("a blue fish on a yellow background", "a red fish under a starry night sky", "a green leaf")),
        ):
            regions = paint_regions(region_numbers(render(scene, self.size)))
            yield "regions", regions
            for text in texts:
                control = Control(picture=regions, type=ControlType.SEGMENTATION, strength=1.0)
                yield text, self._draw(TextToImage(text=text, control=control))

    def _colours(self) -> Iterator[Entry]:
        palettes = (
            ((26, 60, 110), (244, 190, 80), (250, 244, 230)),
            ((240, 98, 146), (255, 214, 224), (120, 60, 140)),
            ((34, 84, 66), (200, 232, 196), (250, 210, 50)),
            ((60, 60, 66), (226, 54, 54), (245, 245, 245)),
        )
        for text in ("glossy 3D emoji of owl", "a house in a meadow"):
            for colors in palettes:
                picture = self._draw(ColorGuidedGeneration(text=text, colors=colors))
                strip = swatches(colors, self.size, self.size // 10)
                yield text, np.concatenate((picture[: -len(strip)], strip))

    def _variations(self) -> Iterator[Entry]:
        for scene, text in ((_FISH, ""), (_HOUSE, "in the snow")):
            picture = self._picture(scene)
            yield "the picture", picture
            for number, similarity in enumerate((0.3, 0.6, 0.9) if not text else (0.5, 0.9)):
                task = ImageVariation(images=(picture,), text=text, similarity=similarity)
                yield f"{text}{', ' * bool(text)}similarity {similarity}", self._draw(task, number)
        both = ImageVariation(images=(self._picture(_FISH), self._picture(_HOUSE)), text="a fish in a meadow")
        yield "of both: a fish in a meadow", self._draw(both)

    def _inpainting(self) -> Iterator[Entry]:
        drawn = render(_HOUSE, self.size)
        picture, mask = drawn.image[..., :3], self._grown(drawn, 0)
        yield "the picture", picture
        yield "the part", np.where(mask[..., None], np.uint8(255), picture // 2)
        for text in ("a yellow castle", "a big blue mushroom", "a purple gift"):
            yield text, self._draw(Inpainting(image=picture, mask=mask, text=text))
        yield "no words: removed", self._draw(Inpainting(image=picture, mask=mask))
        for mask_words, text in (("the green tree", "a red balloon"), ("the house", "a shiny white castle")):
            task = Inpainting(image=picture, mask=mask_words, text=text)
            yield f'"{mask_words}" becomes {text}', self._draw(task)

    def _outpainting(self) -> Iterator[Entry]:
        drawn = render(_FISH, self.size)
        picture, mask = drawn.image[..., :3], ~drawn.masks[0]
        yield "the picture", picture
        for text, mode in _SURROUNDINGS:
            yield f"{text}, {mode}", self._draw(Outpainting(image=picture, mask=mask, mode=mode, text=text))
        task = Outpainting(image=picture, mask="the fish", text="a fish in a green meadow under a blue sky")
        yield 'keeping "the fish": in a meadow', self._draw(task)

    def _without_background(self) -> Iterator[Entry]:
        for picture in (self._picture(_HOUSE), self._picture(_FISH), self._person(0).image[..., :3]):
            yield "the picture", picture
            yield "its foreground", self._draw(BackgroundRemoval(image=picture))

    def _try_on(self) -> Iterator[Entry]:
        rng = np.random.default_rng(self.seed)
        for number in range(2):
            person = self._person(number)
            source = person.image[..., :3]
            reference = render_garment(sample_garment(rng, "upper"), (self.size, self.size))[..., :3]
            yield "the person", source
            yield "the garment", reference
            worn = binary_dilation(person.parts["upper"], iterations=max(1, self.size // 40))
            yield "with a mask", self._draw(VirtualTryOn(source=source, reference=reference, mask=worn))
            by_class = GarmentMask(garment="UPPER_BODY")
            task = VirtualTryOn(source=source, reference=reference, mask=by_class, merge_style="DETAILED")
            yield "by class: upper body, detailed", self._draw(task)

    def _person(self, number: int) -> RenderedDoll:
        """Doll number `number` of those that wear something above and nothing over it."""
        dolls = (sample_doll(seed) for seed in count(self.seed))
        fitting = (doll for doll in dolls if doll.worn("upper") and not doll.worn("outer"))
        return render_doll(next(islice(fitting, number, None)), (self.size, self.size))

    def _picture(self, scene: Scene) -> np.ndarray:
        return render(scene, self.size).image[..., :3]

    def _grown(self, drawn: Rendered, index: int) -> np.ndarray:
        return binary_dilation(drawn.masks[index], iterations=max(1, self.size // 32))


def lay_out(sections: dict[str, list[Entry]], size: int) -> Image.Image:
    """Sections of labelled pictures of `size` x `size` pixels, each below its title, in rows of eight."""
    title_font, font = ImageFont.load_default(_TITLE_SIZE), ImageFont.load_default(_LABEL_SIZE)
    step = size + _MARGIN
    cell = size + _LABEL_LINES * (_LABEL_SIZE + 3) + _MARGIN
    heading = _TITLE_SIZE + 2 * _MARGIN
    rows = {title: -(-len(entries) // _COLUMNS) for title, entries in sections.items()}
    height = sum(heading + count * cell for count in rows.values()) + _MARGIN
    result = Image.new("RGB", (_COLUMNS * step + _MARGIN, height), (252, 252, 250))
    draw = ImageDraw.Draw(result)
    top = 0
    for title, entries in sections.items():
        draw.text((_MARGIN, top + _MARGIN), title, fill=(30, 34, 52), font=title_font)
        top += heading
        for number, (label, picture) in enumerate(entries):
            left, upper = _MARGIN + number % _COLUMNS * step, top + number // _COLUMNS * cell
            paste(result, picture, left, upper)
            text = wrapped(label, font, size, _LABEL_LINES)
            draw.multiline_text((left, upper + size + 4), text, fill=(84, 88, 104), font=font, spacing=2)
        top += rows[title] * cell
    return result
