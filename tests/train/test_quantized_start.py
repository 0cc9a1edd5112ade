from __future__ import annotations

from pathlib import Path

import pytest

from kilonova.core.errors import ConfigError
from kilonova.data.sources import Source
from kilonova.models.quantization.quantize import QuantizationConfig, quantize_directory
from kilonova.train.language_run import language_context, starting_decoder
from kilonova.train.recipe import DataSection, ModelSection, TrainRecipe
from kilonova.train.run_recipe import OptimizerSection


def test_quantised_weights_are_no_start_for_training(tiny_micro_directory: Path, tmp_path: Path) -> None:
    quantize_directory(tiny_micro_directory, tmp_path / "int8", QuantizationConfig(number_format="int8"), quiet=True)
    recipe = TrainRecipe(
        objective="pretrain",
        output=str(tmp_path / "run"),
        model=ModelSection(init_from=str(tmp_path / "int8")),
        data=DataSection(sequence_length=8, sources=(Source("text", "text.txt"),)),
        optimizer=OptimizerSection(lr=1e-3),
        steps=1,
        batch_size=1,
        micro_batch_size=1,
    )
    with pytest.raises(ConfigError, match="is quantised; train what it was made from"):
        starting_decoder(language_context(recipe))
