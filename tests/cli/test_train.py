"""`kilonova train`: which recipe, which overrides."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilonova.cli.train import app
from kilonova.core.errors import ConfigError


def test_unknown_recipe_names_the_nearest() -> None:
    result = CliRunner().invoke(app, ["micro/pretrian"])

    assert isinstance(result.exception, ConfigError)
    assert "micro/pretrain" in str(result.exception)


def test_unknown_key_names_the_nearest() -> None:
    result = CliRunner().invoke(app, ["micro/pretrain", "optimizer.lrr=1e-3"])

    assert isinstance(result.exception, ConfigError)
    assert "optimizer.lrr" in str(result.exception)
    assert "'lr'" in str(result.exception)


@pytest.mark.parametrize("override", ["steps", "=3"])
def test_override_without_key_or_value_is_refused(override: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["micro/pretrain", f"output={tmp_path}", override])

    assert isinstance(result.exception, ConfigError)
    assert override in str(result.exception)


def test_the_word_run_may_be_left_out() -> None:
    for arguments in (["nowhere.yaml"], ["run", "nowhere.yaml"]):
        result = CliRunner().invoke(app, arguments)
        assert "nowhere.yaml" in str(result.exception)


def test_help_teaches_the_verbs() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "kilonova train micro/pretrain" in result.output
    assert "run" in result.output
