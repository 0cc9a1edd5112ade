"""Canvas's shipped recipes as they are, but for the sizes: each after the one it starts from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest
from tests.data.pictures.discs import write_discs

from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.components import load_folder
from kilonova.studio.settings import SamplingSettings
from kilonova.studio.tasks import Style
from kilonova.train.run import train

SIZE = ("steps=2", "batch_size=4", "micro_batch_size=2", "pictures.sizes=[[32, 32]]")
FEW = ("pictures.validation_pictures=3", "evaluate_every=2", "schedule.warmup_steps=1")
MACHINE = ("device=cpu", "dtype=float32", "compile=false", "threads=1")


def test_the_stages_run_one_after_another(
    tmp_path: Path, tiny_tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/image").mkdir(parents=True)
    write_discs(Path("data/image/emoji_captions.parquet"))
    shutil.copytree(tiny_tokenizer_directory, "runs/micro/tokenizer")
    small = ("model.config.block_out_channels=[16, 32]", "model.config.refine_channels=8")
    record = json.loads((train("canvas/autoencoder", [*SIZE, *FEW, *MACHINE, *small]) / "training.json").read_text())
    assert record["validation_loss"].keys() == {"emoji-held-out PSNR", "world-held-out PSNR"}
    narrow = ("model.config.hidden_size=32", "model.config.num_hidden_layers=3", "model.config.text_hidden_size=32")
    narrow += ("flow.text_encoder.hidden_size=32", "flow.text_encoder.intermediate_size=64")
    directory = train("canvas/flow", [*SIZE, *FEW, *MACHINE, *narrow])
    few = ("pictures.worlds.0.scenes=2", "pictures.dolls.0.dolls=2", "flow.views=1")
    few += ("flow.text_encoder.num_attention_heads=4",)
    gpu = train("canvas/flow-gpu", [*SIZE, *FEW, *MACHINE, *narrow, *few])
    assert load_folder(gpu)["scheduler"] == load_folder(directory)["scheduler"]
    assert len(list(Path("runs/canvas/latents").iterdir())) == 3
    rival = train("canvas/compare", [*SIZE, *FEW, *MACHINE, *narrow, "pictures.worlds.0.scenes=2"])
    assert not SamplingSettings.from_dict(load_folder(rival)["scheduler"], "scheduler_config.json").few_step
    parts = load_folder(directory)
    assert isinstance(parts["vae"], ImageAutoencoder)
    assert parts["vae"].config.latents_std is not None
    record = json.loads((directory / "training.json").read_text())
    assert record["validation_loss"].keys() == {"emoji-held-out", "world-held-out"}
    assert [source["name"] for source in record["sources"]] == ["emoji", "world", "dolls"]
    settings = SamplingSettings.from_dict(parts["scheduler"], "scheduler_config.json")
    assert settings.styles.keys() == set(get_args(Style))
    assert settings.few_step
