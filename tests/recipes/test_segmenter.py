"""The segmenter's shipped recipe as it is, but for the sizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.data.pictures.discs import write_discs

from kilonova.models.segmenter.config import MixedQuerySegmenterConfig
from kilonova.models.sizing import num_parameters
from kilonova.recipes import find_recipe
from kilonova.studio.mask_former import MaskFormer
from kilonova.train.build import load_recipe
from kilonova.train.pictures.segmenter_recipe import SegmenterRecipe
from kilonova.train.run import train

SIZE = ("steps=1", "batch_size=2", "micro_batch_size=2", "pictures.sizes=[[32, 32]]", "pictures.validation_pictures=2")
MACHINE = ("device=cpu", "dtype=float32", "compile=false", "threads=1")


def test_the_recipe_trains_what_the_studio_asks(
    tmp_path: Path, tiny_tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/image").mkdir(parents=True)
    write_discs(Path("data/image/emoji_captions.parquet"))
    shutil.copytree(tiny_tokenizer_directory, "runs/micro/tokenizer")
    directory = train("canvas/segmenter", [*SIZE, *MACHINE])
    record = json.loads((directory / "training.json").read_text())
    assert [source["name"] for source in record["sources"]] == ["emoji", "world", "dolls"]
    assert record["validation_loss"].keys() == {
        f"{source} {metric}"
        for source in ("emoji-held-out", "world-held-out", "world-unseen-names", "dolls-held-out")
        for metric in ("foreground IoU", "referring IoU", "PQ")
    }
    assert MaskFormer.load(directory).foreground(np.zeros((20, 30, 3), np.uint8)).shape == (20, 30)


@pytest.mark.parametrize(("name", "least", "most"), [("segmenter", 3e6, 5e6), ("segmenter-gpu", 10e6, 13e6)])
def test_sizes_and_shares_are_those_that_the_recipes_tell(name: str, least: float, most: float) -> None:
    recipe = load_recipe(find_recipe(f"canvas/{name}"))
    assert isinstance(recipe, SegmenterRecipe)
    assert least < num_parameters(MixedQuerySegmenterConfig.from_dict(recipe.model.config or {})) < most
    # As many emoji as are not held out.
    emoji = 7897 * recipe.pictures.icons[0].weight
    worlds = sum(world.scenes * world.weight for world in recipe.pictures.worlds)
    dolls = sum(source.dolls * source.weight for source in recipe.pictures.dolls)
    assert worlds == pytest.approx(2 * emoji, rel=0.05)
    assert dolls == pytest.approx(emoji / 2, rel=0.05)
