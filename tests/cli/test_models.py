"""`kilonova models`: list, import, export, remove."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kilonova.cli.models import app
from kilonova.core.errors import ConfigError, InvalidRequest, ModelNotFound
from kilonova.evals.run import Report


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KILONOVA_HOME", str(tmp_path / "home"))


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


def listed() -> dict[str, dict]:
    return {row["name"]: row for row in json.loads(invoke("list", "--json").stdout)}


def test_import_list_export_remove(tiny_micro_directory: Path, tmp_path: Path) -> None:
    assert invoke("import", str(tiny_micro_directory), "--name", "tiny").exit_code == 0

    row = listed()["tiny"]
    config = json.loads((tiny_micro_directory / "config.json").read_text())
    assert row["context_length"] == config["max_position_embeddings"]
    assert row["bytes"] > 0
    assert "tiny" in invoke("list").stdout

    assert invoke("export", "tiny", str(tmp_path / "exported")).exit_code == 0
    for file in tiny_micro_directory.glob("*.safetensors"):
        assert (tmp_path / "exported" / file.name).read_bytes() == file.read_bytes()

    assert invoke("remove", "tiny").exit_code == 0
    assert "tiny" not in listed()


def test_linked_import_leaves_the_files_alone(tiny_micro_directory: Path) -> None:
    before = sorted(tiny_micro_directory.iterdir())

    invoke("import", str(tiny_micro_directory), "--name", "tiny", "--link")
    assert listed()["tiny"]["directory"] == str(tiny_micro_directory.resolve())
    invoke("remove", "tiny")

    assert sorted(tiny_micro_directory.iterdir()) == before


def test_import_of_something_else_is_refused(tmp_path: Path) -> None:
    result = invoke("import", str(tmp_path))

    assert result.exit_code == 1
    assert "config.json" in str(result.exception)
    assert not (tmp_path / "home" / "models").exists()


def test_importing_a_name_twice_is_refused(tiny_micro_directory: Path) -> None:
    invoke("import", str(tiny_micro_directory), "--name", "tiny")

    result = invoke("import", str(tiny_micro_directory), "--name", "tiny")

    assert isinstance(result.exception, ConfigError)


def test_export_of_an_unknown_model_names_the_nearest(tiny_micro_directory: Path, tmp_path: Path) -> None:
    invoke("import", str(tiny_micro_directory), "--name", "tiny")

    result = invoke("export", "tinny", str(tmp_path / "out"))

    assert isinstance(result.exception, ModelNotFound)
    assert "'tiny'" in str(result.exception)


def test_card_shows_what_was_recorded_and_what_the_model_says(tiny_micro_directory: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    assert invoke("export", str(tiny_micro_directory), str(directory)).exit_code == 0
    evaluation = Report("tiny", parameters=1, limit=5, seed=0, version="0", context_length=512)
    (tmp_path / "evals.json").write_text(evaluation.to_json())

    result = invoke("card", str(directory), "--name", "Tiny", "--evaluation", str(tmp_path / "evals.json"))

    assert result.exit_code == 0, result.exception
    card = (directory / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0")
    assert "# Tiny" in card
    assert "Who are you?" in card


def test_merge_writes_a_model_that_chat_can_open(tiny_micro_directory: Path, tmp_path: Path) -> None:
    import torch

    from kilonova.models.adapter import AdapterConfig, adapter_layers, attach_adapter, save_adapter
    from kilonova.models.checkpoint import load_decoder

    decoder = load_decoder(tiny_micro_directory)
    attach_adapter(decoder, AdapterConfig(rank=2))
    for layer in adapter_layers(decoder).values():
        torch.nn.init.normal_(layer.lora_B)
    save_adapter(decoder, tmp_path / "adapter", base="tiny")

    result = invoke("merge", str(tiny_micro_directory), str(tmp_path / "adapter"), "--output", str(tmp_path / "whole"))

    assert result.exit_code == 0, result.exception
    input_ids = torch.arange(10)[None]
    with torch.no_grad():
        found, expected = load_decoder(tmp_path / "whole")(input_ids), decoder(input_ids)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "whole" / "tokenizer.json").exists()


def test_an_adapter_is_not_taken_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")

    result = invoke("export", str(tmp_path), str(tmp_path / "out"))

    assert isinstance(result.exception, InvalidRequest)
    assert "kilonova models merge" in str(result.exception)


def test_an_adapter_is_imported_and_listed_beside_its_base(tiny_micro_directory: Path, tmp_path: Path) -> None:
    from kilonova.models.adapter import AdapterConfig, attach_adapter, save_adapter
    from kilonova.models.checkpoint import load_decoder

    decoder = load_decoder(tiny_micro_directory)
    attach_adapter(decoder, AdapterConfig(rank=2))
    save_adapter(decoder, tmp_path / "polite", base="elsewhere")
    invoke("import", str(tiny_micro_directory), "--name", "tiny", "--link")

    assert "say which is its base" in str(invoke("import", str(tmp_path / "polite")).exception)
    assert invoke("import", str(tmp_path / "polite"), "--base", "tiny").exit_code == 0
    row = listed()["polite"]
    assert (row["base"], listed()["tiny"]["base"]) == ("tiny", None)
    assert 0 < row["bytes"] < listed()["tiny"]["bytes"]
    assert "adapter of tiny" in invoke("list").stdout
    result = invoke("export", "polite", str(tmp_path / "out"))
    assert isinstance(result.exception, InvalidRequest)
    assert f"kilonova models merge tiny {row['directory']}" in str(result.exception)
    assert invoke("remove", "polite").exit_code == 0
    assert "polite" not in listed()
