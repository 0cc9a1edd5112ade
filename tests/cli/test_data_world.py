"""`kilonova data world`: scenes to look at and to learn from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kilonova.cli.data import app
from kilonova.core.errors import ConfigError, DataError
from kilonova.data.world.render import render
from kilonova.data.world.sampling import SceneConfig, sample_scene


def test_a_sheet_shows_the_scenes(tmp_path: Path) -> None:
    path = tmp_path / "scenes.png"
    arguments = ["world", str(path), "--count", "7", "--size", "64", "--seed", "5", "--task", "counting"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.stdout.strip() == str(path)
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    scene = render(sample_scene((5, 1), SceneConfig(task="counting")), 64).image[..., :3]
    assert np.array_equal(pixels[12:76, 88:152], scene)
    # Words under the first one.
    assert pixels[80:100, 12:76].min() < 100


def test_rows_tell_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "scenes.jsonl"
    arguments = ["world", str(path), "--count", "5", "--split", "held_out"]
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    first = path.read_text()
    rows = [json.loads(line) for line in first.splitlines()]
    assert [row["scene"] for row in rows] == [[0, index] for index in range(5)]
    for row in rows:
        assert row["captions"]["short"]
        assert row["questions"]
        assert all(question["answer"] in question["choices"] for question in row["questions"])
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert path.read_text() == first


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["scenes.gif"], ConfigError, "neither a .png nor a .jsonl"),
        (["scenes.png", "--count", "201"], ConfigError, "at most 200"),
        (["scenes.png", "--task", "count"], DataError, "counting"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["world", *arguments])
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())
