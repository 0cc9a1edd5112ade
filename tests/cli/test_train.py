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
