"""`kilonova models quantize`, `compare` and `prune`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kilonova.cli.models import app
from kilonova.core.config import load_config
from kilonova.core.errors import InvalidRequest
from kilonova.models.checkpoint import load_decoder
from kilonova.recipes import find_recipe
from kilonova.train.recipe import TrainRecipe


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KILONOVA_HOME", str(tmp_path / "home"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("seven wizards quietly vex a judge under bright northern lights " * 40)
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--bits", "8"), ("int8", None)),
        (("--bits", "fp8"), ("fp8", None)),
        (("--bits", "4"), ("int4", 64)),
        (("--bits", "4", "--group-size", "32", "--method", "gptq", "--no-activation-order"), ("int4", 32)),
    ],
)
def test_quantised_directories_are_written_and_measured(
    options: tuple[str, ...], expected: tuple[str, int | None], tiny_micro_directory: Path, text: Path, tmp_path: Path
) -> None:
    calibration = ("--calibration", text, "--sequences", 4, "--sequence-length", 32)
    result = invoke(
        "quantize", tiny_micro_directory, tmp_path / "out", *options, *calibration, "--text", text, "--json"
    )

    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    layer = load_decoder(tmp_path / "out").model.layers[0].mlp.up_proj
    assert (layer.number_format, layer.group_size) == expected
    assert found["after"]["weight_bytes"] < found["before"]["weight_bytes"]
    assert found["after"]["bits_per_byte"] == pytest.approx(found["before"]["bits_per_byte"], rel=0.2)

    assert invoke("import", tmp_path / "out", "--name", "small").exit_code == 0
    compared = invoke("compare", tiny_micro_directory, "small", "--text", text, "--json")
    assert json.loads(compared.stdout)["after"]["bits_per_byte"] == found["after"]["bits_per_byte"]
    assert "bits per byte" in invoke("compare", tiny_micro_directory, "small", "--text", text).stdout


def test_pruned_models_come_with_the_command_that_trains_them_back(
    tiny_micro_directory: Path, text: Path, tmp_path: Path
) -> None:
    sizes = ("--layers", 1, "--intermediate-size", 96, "--heads", 1)
    options = ("--calibration", text, "--sequences", 4, "--sequence-length", 32, "--text", text, "--json")
    result = invoke("prune", tiny_micro_directory, tmp_path / "out", *sizes, *options)

    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    config = load_decoder(tmp_path / "out").config
    assert (config.num_hidden_layers, config.intermediate_size, config.num_attention_heads) == (1, 96, 2)
    assert found["after"]["parameters"] < found["before"]["parameters"]
    command = shlex.split(found["recover"])
    assert command[:3] == ["kilonova", "train", "micro/distill"]
    recipe = load_config(TrainRecipe, find_recipe(command[2]), command[3:])
    assert recipe.model.init_from == str(tmp_path / "out")
    assert recipe.distill is not None
    assert recipe.distill.teacher == str(tiny_micro_directory)
    shown = invoke("prune", tiny_micro_directory, tmp_path / "again", *sizes, *options[:-1])
    assert "kilonova train micro/distill" in shown.stdout


def test_a_report_can_be_left_out(tiny_micro_directory: Path, tmp_path: Path) -> None:
    result = invoke("quantize", tiny_micro_directory, tmp_path / "out", "--no-report", "--json")
    assert json.loads(result.stdout) == {"directory": str(tmp_path / "out")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bits", "3"), "--bits: '3' is not one of 8, 4, fp8"),
        (("--calibration", "nowhere.txt"), "--calibration: no file nowhere.txt"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: tuple[str, ...], message: str, tiny_micro_directory: Path, tmp_path: Path
) -> None:
    result = invoke("quantize", tiny_micro_directory, tmp_path / "out", *options)
    assert isinstance(result.exception, InvalidRequest)
    assert message in str(result.exception)
