"""`kilonova tokenizer train`: from text files or from a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilonova.cli.tokenizer import app
from kilonova.core.errors import ConfigError
from kilonova.text.tokenizer import Tokenizer


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    rows = [
        {"title": f"part {number}", "body": "the cat sat on the mat and the dog ran home " * 3} for number in range(50)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_trains_from_files(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "tokenizer"
    arguments = [str(corpus), "--vocab-size", "290", "--output", str(output), "--template", "{title}: {body}"]

    result = CliRunner().invoke(app, ["train", *arguments], catch_exceptions=False)

    assert result.stdout.strip() == str(output)
    tokenizer = Tokenizer.from_directory(output)
    assert tokenizer.vocab_size == 290
    assert tokenizer.decode(tokenizer.encode("the cat")) == "the cat"
    assert len(tokenizer.encode("the cat")) < len("the cat")


def test_trains_from_a_recipe_with_overrides(corpus: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"output: {tmp_path / 'unused'}\nvocab_size: 280\nmodel_max_length: 64\ndata_root: {tmp_path}\n"
        "sources:\n  - {name: corpus, path: corpus.jsonl, template: '{body}'}\n"
    )
    output = tmp_path / "tokenizer"

    arguments = ["train", "--recipe", str(recipe), "vocab_size=290", f"output={output}"]
    CliRunner().invoke(app, arguments, catch_exceptions=False)

    assert Tokenizer.from_directory(output).vocab_size == 290
    assert not (tmp_path / "unused").exists()


def test_missing_options_are_named() -> None:
    result = CliRunner().invoke(app, ["train", "--vocab-size", "300"])

    assert isinstance(result.exception, ConfigError)
    assert "--output" in str(result.exception)


def test_missing_file_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere.txt")

    result = CliRunner().invoke(app, ["train", missing, "--vocab-size", "300", "--output", str(tmp_path / "out")])

    assert isinstance(result.exception, ConfigError)
    assert missing in str(result.exception)
