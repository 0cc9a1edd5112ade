"""`kilonova eval canvas` on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.tiny_canvas import ColourSegmenter, write_tiny_canvas
from typer.testing import CliRunner

from kilonova.cli.eval import app
from kilonova.core.errors import InvalidRequest
from kilonova.models.classifier.config import AttributeClassifierConfig
from kilonova.models.classifier.model import AttributeClassifier
from kilonova.models.components import save_component
from kilonova.studio.canvas import Canvas
from kilonova.studio.tasks import ImageRequest, ImageResult


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_canvas(tmp_path_factory.mktemp("canvas") / "model")


def test_json_is_one_object_with_what_was_measured_and_what_not(model: Path, tmp_path: Path) -> None:
    heads = {"texture": ["plain", "striped"], "style": ["noto", "twemoji"]}
    classifier = AttributeClassifier(
        AttributeClassifierConfig.from_dict({"heads": heads, "image_size": 16, "block_out_channels": [16]})
    )
    classifier.init_weights(torch.Generator().manual_seed(0))
    save_component(classifier, tmp_path / "classifier")
    arguments = ["canvas", str(model), "--limit", "4", "--steps", "1", "--json", "--out", str(tmp_path / "out")]
    arguments += ["--classifier", str(tmp_path / "classifier"), "--output", str(tmp_path / "report.json")]
    for part in ("reconstruction", "edits", "edges", "colours", "tifa-world", "style"):
        arguments += ["--only", part]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    report = json.loads(result.stdout)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["size"] == 64
    assert {score["part"] for score in report["scores"]} == {"reconstruction", "edits", "edges", "colours"}
    assert set(report["left_out"]) == {"tifa-world", "style"}
    assert all(score["low"] <= score["value"] <= score["high"] for score in report["scores"])
    (kept,) = (score for score in report["scores"] if score["metric"].startswith("INPAINTING"))
    assert kept["value"] == 1
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [
        "colours.png", "edges.png", "edits.png", "reconstruction.png"
    ]  # fmt: skip


def test_a_table_without_options(model: Path) -> None:
    arguments = ["canvas", str(model), "--limit", "2", "--steps", "1", "--only", "colours"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"}, catch_exceptions=False)
    assert "median CIEDE2000" in result.stdout


def test_a_sheet_shows_every_task(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    generate = Canvas.generate

    def recorded(canvas: Canvas, request: ImageRequest) -> ImageResult:
        """Notes what is asked for, of a model whose eyes go by colour."""
        asked.append(type(request.task).__name__)
        canvas.segmenter = ColourSegmenter()
        return generate(canvas, request)

    monkeypatch.setattr(Canvas, "generate", recorded)
    path = tmp_path / "sheet.png"
    arguments = ["canvas", str(model), "--sheet", str(path), "--size", "48", "--steps", "1"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.stdout.strip() == str(path)
    assert set(asked) == {
        "TextToImage", "ColorGuidedGeneration", "ImageVariation", "Inpainting", "Outpainting", "BackgroundRemoval",
        "VirtualTryOn",
    }  # fmt: skip
    with Image.open(path) as sheet:
        assert sheet.width == 8 * (48 + 14) + 14
        assert sheet.height > 10 * 48


def test_mistakes_are_named(model: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["canvas", str(model), "--only", "colour"])
    assert isinstance(result.exception, InvalidRequest)
    assert "'colours'" in str(result.exception)
    result = CliRunner().invoke(app, ["canvas", str(model), "--sheet", str(tmp_path / "sheet.gif")])
    assert isinstance(result.exception, InvalidRequest)
