"""Pictures from Parquet files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from kilonova.core.errors import ConfigError, DataError
from kilonova.data.pictures.sources import ParquetPictures, PictureSource
from kilonova.data.world.colours import BACKGROUND_COLOURS


def source_of(path: Path, **options: object) -> PictureSource:
    return PictureSource(name="discs", path=path.name, **{"captions": ("{style} {name} disc",), **options})  # type: ignore[arg-type]


def test_rows_are_chosen_decoded_and_described(discs: Path) -> None:
    pictures = ParquetPictures(
        source_of(discs, where={"split": ("train",)}, words={"style": {"flat-3d": "3D"}}), discs.parent
    )
    assert len(pictures) == 5
    captions = {pictures.caption(index, np.random.default_rng(0)) for index in range(5)}
    assert captions == {"plain red disc", "plain green disc", "3D red disc", "3D green disc", "3D blue disc"}
    assert "image" not in pictures.fields(0)
    picture = np.asarray(pictures.picture(0))
    assert picture.shape == (32, 32, 4)
    assert tuple(picture[16, 16]) == (220, 20, 20, 255)
    assert picture[0, 0, 3] == 0


def test_every_template_is_used(discs: Path) -> None:
    pictures = ParquetPictures(source_of(discs, captions=("{name}", "a {name} one")), discs.parent)
    generator = np.random.default_rng(0)
    assert {pictures.caption(0, generator) for _ in range(20)} == {"red", "a red one"}


def test_a_view_before_a_colour_says_which(discs: Path) -> None:
    pictures = ParquetPictures(source_of(discs, captions=("{name}",)), discs.parent)
    colours = {}
    for seed in range(60):
        picture, caption = pictures.view(0, 32, 32, np.random.default_rng(seed))
        if picture[0, 0, 3] == 0:
            assert caption == "red"
            continue
        (name,) = [name for name in BACKGROUND_COLOURS if name in caption]
        colours[name] = np.abs(picture[0, 0, :3].astype(int) - BACKGROUND_COLOURS[name]).max()
    assert len(colours) > 5
    assert max(colours.values()) <= 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": {"split": ("test",)}}, "no row"),
        ({"where": {"fold": ("train",)}}, "no column 'fold'"),
        ({"image_column": "picture"}, "no column 'picture'"),
        ({"captions": ("{title}",)}, "no field 'title'"),
    ],
)
def test_what_is_not_there_is_named(discs: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ParquetPictures(source_of(discs, **options), discs.parent)


def test_files_that_are_not_there_or_not_parquet_are_named(discs: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*other\.parquet.*pictures\.root"):
        ParquetPictures(source_of(discs.with_name("other.parquet")), discs.parent)
    discs.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        ParquetPictures(source_of(discs), discs.parent)


@pytest.mark.parametrize("image", [b"not a picture", None])
def test_a_damaged_picture_is_named(tmp_path: Path, image: bytes | None) -> None:
    path = tmp_path / "damaged.parquet"
    schema = pyarrow.schema([("image", pyarrow.binary()), ("name", pyarrow.string())])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"image": image, "name": "x"}], schema=schema), path)
    pictures = ParquetPictures(source_of(path, captions=("{name}",)), tmp_path)
    with pytest.raises(DataError, match=r"damaged\.parquet: row 0"):
        pictures.picture(0)


def test_impossible_sources_are_refused() -> None:
    with pytest.raises(ConfigError, match="weight"):
        PictureSource(name="x", path="x.parquet", weight=0)
    with pytest.raises(ConfigError, match="captions"):
        PictureSource(name="x", path="x.parquet", captions=())
