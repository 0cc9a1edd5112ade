from __future__ import annotations

import filecmp
from pathlib import Path

import pytest
import torch

from kilonova.core.errors import CheckpointError, ConfigError, ModelNotFound
from kilonova.models.checkpoint import load_decoder
from kilonova.models.library import export_model, import_model, remove_model
from kilonova.models.registry import Registry


@pytest.fixture
def source(make_reference, tmp_path) -> Path:
    """A checkpoint with files beside it that are not the model's."""
    path = tmp_path / "source"
    path.mkdir()
    for file in make_reference("qwen3-layer-types").directory.iterdir():
        (path / file.name).symlink_to(file)
    (path / "tokenizer.json").write_text("{}")
    (path / "optimizer.pt").write_bytes(b"0" * 100)
    (path / ".cache").mkdir()
    return path


def test_a_copied_import_stands_by_itself(source, tmp_path):
    home = tmp_path / "home"
    entry = import_model("mine", source, home=home)
    assert entry == Registry(home=home).get("mine")
    assert entry.context_length == 128
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert {file.name for file in entry.directory.iterdir()} == names
    assert not any(file.is_symlink() for file in entry.directory.iterdir())
    weight = load_decoder(source).model.norm.weight
    assert torch.equal(load_decoder(entry.directory).model.norm.weight, weight)


def test_a_linked_import_is_the_directory_itself(source, tmp_path):
    home = tmp_path / "home"
    assert import_model("mine", source, link=True, home=home).directory == source
    remove_model("mine", home=home)
    assert (source / "config.json").exists()
    assert "mine" not in [entry.name for entry in Registry(home=home).entries()]


def test_a_name_is_imported_once(source, tmp_path):
    home = tmp_path / "home"
    import_model("mine", source, home=home)
    with pytest.raises(ConfigError, match="'mine' is already imported"):
        import_model("mine", source, link=True, home=home)
    remove_model("mine", home=home)
    with pytest.raises(ModelNotFound, match="no imported model 'mine'"):
        remove_model("mine", home=home)
    import_model("mine", source, link=True, home=home)


def test_broken_checkpoints_are_not_imported(source, tmp_path):
    home = tmp_path / "home"
    (source / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="neither"):
        import_model("mine", source, home=home)
    with pytest.raises(ConfigError, match="is not allowed"):
        import_model("../mine", source, home=home)
    with pytest.raises(ConfigError, match="is not allowed"):
        remove_model("..", home=home)
    assert not home.exists()


def test_an_export_is_the_model_again(source, tmp_path):
    entry = import_model("mine", source, home=tmp_path / "home")
    export_model(entry, tmp_path / "out")
    names = [file.name for file in entry.directory.iterdir()]
    assert filecmp.cmpfiles(entry.directory, tmp_path / "out", names, shallow=False)[0] == names
    with pytest.raises(ConfigError, match="already exists"):
        export_model(entry, tmp_path / "out")
