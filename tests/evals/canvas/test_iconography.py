"""Icons of held-back looks, and what a classifier says of drawn ones."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image, ImageDraw

from kilonova.core.errors import DataError
from kilonova.evals.canvas import iconography
from kilonova.evals.canvas.icons import IconSet, on_white
from kilonova.evals.canvas.study import Study
from kilonova.studio.tasks import ImageRequest, ImageResult, TextToImage

NAMES = {"tomato": (220, 30, 30), "leaf": (30, 200, 40), "pool": (40, 60, 220), "lemon": (240, 230, 40)}
STYLES = {"noto": 0, "twemoji": 10}
GROUPS = {"tomato": "food & drink", "lemon": "food & drink", "leaf": "nature", "pool": "places"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Discs and rings, one style of each concept held back."""
    rows = []
    for number, (name, colour) in enumerate(NAMES.items()):
        for style, hole in STYLES.items():
            image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
            draw = ImageDraw.Draw(image)
            draw.ellipse((2, 2, 29, 29), fill=(*colour, 255))
            if hole:
                draw.ellipse((16 - hole, 16 - hole, 15 + hole, 15 + hole), fill=(0, 0, 0, 0))
            file = io.BytesIO()
            image.save(file, "PNG")
            held_back = list(STYLES).index(style) == number % 2
            rows.append({"image": file.getvalue(), "name": name, "style": style, "group": GROUPS[name],
                         "keywords": "", "split": "eval" if held_back else "train"})  # fmt: skip
    (tmp_path / "image").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "image" / "emoji_captions.parquet")
    return tmp_path


class Glance:
    """Knows discs by the colour of their rim, and rings by the white in their middle."""

    heads: Mapping[str, tuple[str, ...]] = {
        "style": tuple(STYLES), "name": tuple(NAMES), "group": tuple(sorted(set(GROUPS.values())))
    }  # fmt: skip

    def probabilities(self, name: str, pictures: Sequence[np.ndarray]) -> np.ndarray:
        rows = np.zeros((len(pictures), len(self.heads[name])))
        for row, picture in zip(rows, pictures, strict=True):
            rim = picture[len(picture) // 2, 3, :3].astype(int)
            concept = min(NAMES, key=lambda one: np.abs(rim - NAMES[one]).sum())
            ring = picture[16, 16, :3].min() > 250
            told = {"name": concept, "group": GROUPS[concept], "style": list(STYLES)[int(ring)]}
            row[self.heads[name].index(told[name])] = 1
        return rows

    def features(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([picture[..., :3].reshape(-1, 3).mean(0) for picture in pictures]).astype(np.float64)


class Copier:
    """Gives for each caption the real picture, or the one `shift` captions on."""

    def __init__(self, icons: IconSet, shift: int = 0, view: bool = False) -> None:
        held = icons.held_back
        copied = [held[(number + shift) % len(held)] for number in range(len(held))]
        self._pictures = {
            icon.caption: on_white(one.view if view else one.picture) for icon, one in zip(held, copied, strict=True)
        }

    def generate(self, request: ImageRequest, on_step: object = None) -> ImageResult:
        assert isinstance(request.task, TextToImage)
        picture = self._pictures[request.task.text]
        return ImageResult(images=(picture,), native_size=(32, 32), num_inference_steps=1, seed=request.seed)


@pytest.fixture
def icons(root: Path) -> IconSet:
    return IconSet(root, 32, 0, 10)


def test_captions_are_of_held_back_looks_in_the_words_of_training(icons: IconSet) -> None:
    assert {icon.caption for icon in icons.held_back} == {
        "rounded emoji of tomato", "simple flat emoji of leaf", "rounded emoji of pool", "simple flat emoji of lemon"
    }  # fmt: skip
    looks = [{(icon.labels["name"], icon.labels["style"]) for icon in part} for part in (icons.held_back, icons.known)]
    assert len(looks[0]) == len(looks[1]) == 4
    assert not looks[0] & looks[1]


def test_right_and_wrong_icons_are_told_apart(icons: IconSet) -> None:
    base = Study(canvas=Copier(icons), size=32, limit=10, attributes=Glance(), icons=icons, quiet=True)
    (right,) = iconography.measure_faithfulness(base)
    assert right.value == right.ceiling == 1
    assert right.count == 4
    assert right.parts["concept first of all"] == 1
    wrong = replace(base, canvas=Copier(icons, shift=1))
    (found,) = iconography.measure_faithfulness(wrong)
    assert found.parts["by question"]["name"] == 0
    assert found.value == found.baselines["pictures of other captions"] < 0.7
    assert found.ceiling == 1

    (style,) = iconography.measure_style(base)
    assert style.value == style.ceiling == 1
    assert style.baselines["chance"] == 0.5
    same = [one.labels["style"] == two.labels["style"] for one, two in zip(
        icons.held_back, icons.held_back[1:] + icons.held_back[:1], strict=True)]  # fmt: skip
    (style,) = iconography.measure_style(wrong)
    assert style.value == pytest.approx(np.mean(same))


def test_the_distance_is_to_pictures_as_training_sees_them(icons: IconSet) -> None:
    seen = Copier(icons, view=True)
    study = Study(canvas=seen, size=32, limit=10, attributes=Glance(), icons=icons, quiet=True)
    (near,) = iconography.measure_distance(study)
    assert near.value == pytest.approx(0, abs=1e-3)
    assert near.baselines["training pictures"] > 10
    assert "not FID" in near.note
    (far,) = iconography.measure_distance(replace(study, canvas=Copier(icons)))
    assert far.value > 10


def test_a_concept_that_the_classifier_never_saw_is_not_asked_for(icons: IconSet) -> None:
    class Narrow(Glance):
        heads: Mapping[str, tuple[str, ...]] = {**Glance.heads, "name": ("leaf", "pool", "lemon")}

        def probabilities(self, name: str, pictures: Sequence[np.ndarray]) -> np.ndarray:
            return super().probabilities(name, pictures) if name != "name" else np.eye(3)[[0] * len(pictures)]

    class Blind(Glance):
        """Finds every concept equally likely."""

        def probabilities(self, name: str, pictures: Sequence[np.ndarray]) -> np.ndarray:
            return np.full((len(pictures), len(self.heads[name])), 0.25)

    study = Study(canvas=Copier(icons), size=32, limit=10, attributes=Narrow(), icons=icons, quiet=True)
    (found,) = iconography.measure_faithfulness(study)
    # Two questions for each of four icons, and one for three of them, of which one is answered right.
    assert found.value == pytest.approx((8 + 1) / 11, abs=1e-4)
    icons.held_back *= 30
    (guessed,) = iconography.measure_faithfulness(replace(study, attributes=Blind(), limit=120))
    assert guessed.parts["by question"]["name"] < 0.45


def test_a_folder_without_icons_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="emoji"):
        IconSet(tmp_path, 32, 0, 10)
