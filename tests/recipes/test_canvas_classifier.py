"""The shipped recipe of the classifier as it is, but for the sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data.pictures.discs import write_discs

from kilonova.evals.canvas.attributes import NetworkAttributes
from kilonova.evals.canvas.recogniser import HEADS
from kilonova.train.run import train

SIZE = ("steps=1", "batch_size=4", "micro_batch_size=2", "model.config.image_size=16")
SHAPE = ("model.config.block_out_channels=[16, 32]", "pictures.validation_pictures=3", "schedule.warmup_steps=1")
MACHINE = ("device=cpu", "dtype=float32", "compile=false", "threads=1")


def test_it_leaves_what_evaluations_look_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/image").mkdir(parents=True)
    write_discs(Path("data/image/emoji_captions.parquet"))
    directory = train("canvas/classifier", [*SIZE, *SHAPE, *MACHINE])
    record = json.loads((directory / "training.json").read_text())
    told = record["validation_loss"].keys()
    assert {"emoji-held-out style", "world-held-out background", "words-held-out word"} <= told
    assert {*HEADS, "style", "group", "name"} <= NetworkAttributes.load(directory).heads.keys()
