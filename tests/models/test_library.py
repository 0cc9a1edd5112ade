from __future__ import annotations

import filecmp
from pathlib import Path

import pytest
import torch
from tests.tiny_canvas import write_tiny_canvas

from kilonova.core.errors import CheckpointError, ConfigError, ModelNotFound
from kilonova.models.adapter import AdapterConfig, attach_adapter, save_adapter
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


def test_a_picture_model_is_imported_and_exported_with_all_its_folders(tmp_path):
    source, home = write_tiny_canvas(tmp_path / "source"), tmp_path / "home"
    entry = import_model("painter", source, home=home)
    assert entry.output_modalities == ("image",)
    export_model(entry, tmp_path / "exported")
    files = {file.relative_to(source): file.read_bytes() for file in source.rglob("*") if file.is_file()}
    for copy in (entry.directory, tmp_path / "exported"):
        assert {file.relative_to(copy): file.read_bytes() for file in copy.rglob("*") if file.is_file()} == files
    (source / "vae/config.json").write_text("{}")
    with pytest.raises(ConfigError, match="vae"):
        import_model("broken", source, home=home)


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


@pytest.fixture
def lora(source, tmp_path) -> Path:
    """An adapter of `source` that does not know its name."""
    decoder = load_decoder(source)
    attach_adapter(decoder, AdapterConfig(rank=2))
    save_adapter(decoder, tmp_path / "lora", base="elsewhere")
    (tmp_path / "lora" / "optimizer.pt").write_bytes(b"0")
    return tmp_path / "lora"


@pytest.mark.parametrize("record", [None, 'name = "x"\nbase = "other"\nprovider = "Acme"\n'])
def test_an_adapter_is_imported_with_its_base(source, lora, tmp_path, record):
    home = tmp_path / "home"
    import_model("base", source, home=home)
    if record:
        (lora / "kilonova.toml").write_text(record)
    entry = import_model("polite", lora, base="base", home=home)
    assert entry == Registry(home=home).get("polite")
    assert (entry.base, entry.provider) == ("base", "Acme" if record else "custom")
    names = {"adapter_config.json", "adapter_model.safetensors", "kilonova.toml"}
    assert {file.name for file in entry.directory.iterdir()} == names
    remove_model("polite", home=home)
    assert not entry.directory.exists()


def test_an_adapter_that_does_not_fit_is_not_imported(source, lora, make_reference, tmp_path):
    home = tmp_path / "home"
    import_model("base", source, home=home)
    import_model("other", make_reference("llama-tied-biased-llama3").directory, home=home)
    for options, error, message in (
        ({}, ConfigError, "'elsewhere' is no model here"),
        ({"base": "nothing"}, ModelNotFound, "no model 'nothing'"),
        ({"base": "other"}, CheckpointError, "the model"),
        ({"base": "base", "link": True}, ConfigError, "'elsewhere' is no model here"),
    ):
        with pytest.raises(error, match=message):
            import_model("polite", lora, home=home, **options)
    with pytest.raises(ConfigError, match="a model is named 'micro' already"):
        import_model("micro", lora, base="base", home=home)
    with pytest.raises(ConfigError, match="whole model"):
        import_model("again", source, base="base", home=home)
    assert sorted(path.name for path in home.iterdir()) == ["base", "other"]
