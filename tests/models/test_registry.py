from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kilonova.core.errors import CheckpointError, ConfigError, ModelNotFound
from kilonova.models import registry
from kilonova.models.registry import ModelEntry, Registry, check_name, models_home

METADATA = """
name = "orion-small"
aliases = ["acme.orion-small-v1:0", "small"]
display_name = "Orion Small"
provider = "Acme"
description = "The smallest."
input_modalities = ["text", "image"]
max_output_tokens = 100
created = 2025-11-21
"""


def directory(path: Path, context: object = 256, metadata: str | None = None) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"max_position_embeddings": context}))
    if metadata is not None:
        (path / "kilonova.toml").write_text(metadata)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty home for imports, and a shipped family of one."""
    directory(tmp_path / "weights" / "small", metadata=METADATA)
    monkeypatch.setattr(registry, "_SHIPPED", tmp_path / "weights")
    return tmp_path / "home"


def test_a_shipped_model_answers_to_all_its_names(home):
    models = Registry(home=home)
    entry = models.get("orion-small")
    assert models.get("acme.orion-small-v1:0") is models.get("small") is entry
    assert models.entries() == (entry,)
    assert (entry.display_name, entry.provider, entry.description) == ("Orion Small", "Acme", "The smallest.")
    assert (entry.input_modalities, entry.output_modalities) == (("text", "image"), ("text",))
    assert (entry.context_length, entry.max_output_tokens) == (256, 100)
    assert entry.created == datetime(2025, 11, 21, tzinfo=UTC)
    assert entry.directory.name == "small"


def test_unknown_names_get_a_suggestion(home):
    with pytest.raises(ModelNotFound, match="no model 'orion-smal': did you mean 'orion-small'"):
        Registry(home=home).get("orion-smal")
    with pytest.raises(ModelNotFound):
        Registry(home=home).get("")


def test_no_models_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_SHIPPED", tmp_path / "none")
    models = Registry(home=tmp_path / "home")
    assert models.entries() == ()
    with pytest.raises(ModelNotFound, match="there are no models"):
        models.get("anything")


def test_a_named_directory_needs_no_metadata(home, tmp_path):
    path = directory(tmp_path / "any")
    os.utime(path / "config.json", (1_700_000_000, 1_700_000_000))
    models = Registry({"mine": path}, home=home)
    entry = models.get("mine")
    assert [each.name for each in models.entries()] == ["orion-small", "mine"]
    assert (entry.display_name, entry.provider, entry.aliases) == ("mine", "custom", ())
    assert (entry.context_length, entry.max_output_tokens) == (256, 256)
    assert entry.created == datetime.fromtimestamp(1_700_000_000, tz=UTC)


def test_a_name_of_ones_own_leaves_the_aliases_behind(home, tmp_path):
    path = directory(tmp_path / "copy", metadata=METADATA)
    models = Registry({"copy": path}, home=home)
    assert models.get("copy").aliases == ()
    assert models.get("copy").display_name == "Orion Small"
    assert models.get("small").name == "orion-small"


def test_a_later_entry_of_the_same_name_replaces_and_inherits(home, tmp_path):
    path = directory(tmp_path / "tuned", context=512)
    models = Registry({"orion-small": path}, home=home)
    assert len(models.entries()) == 1
    assert models.get("acme.orion-small-v1:0").directory == path
    assert models.get("small").context_length == 512


def test_a_later_entry_takes_an_alias_away(home, tmp_path):
    path = directory(tmp_path / "other")
    models = Registry({"small": path}, home=home)
    assert models.get("small").directory == path
    assert models.get("orion-small").aliases == ("acme.orion-small-v1:0",)


def test_an_alias_that_is_a_name_is_refused(home, tmp_path):
    directory(tmp_path / "weights" / "tiny", metadata='name = "tiny"\naliases = ["orion-small"]\n')
    with pytest.raises(ConfigError, match="'orion-small' is another model's name"):
        Registry(home=home)


def test_imports_are_found_and_broken_ones_explained(home):
    directory(home / "good")
    directory(home / "bad", context="long")
    (home / "gone").symlink_to(home / "nowhere")
    (home / ".good.partial").mkdir()
    models = Registry(home=home)
    assert [entry.name for entry in models.entries()] == ["orion-small", "good"]
    assert sorted(models.unusable) == ["bad", "gone"]
    with pytest.raises(ModelNotFound, match=r"'bad' cannot be used: .*max_position_embeddings"):
        models.get("bad")
    with pytest.raises(ModelNotFound, match=r"'gone' cannot be used: .*config\.json: the file is missing"):
        models.get("gone")


def test_a_named_directory_that_cannot_be_used_is_an_error_at_once(home, tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json: the file is missing"):
        Registry({"mine": tmp_path / "nowhere"}, home=home)


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "-option", "white space", "x" * 129, "a\n"])
def test_names_that_cannot_be_are_refused(name, home, tmp_path):
    with pytest.raises(ConfigError, match="is not allowed; use 1 to 128 letters"):
        check_name(name)
    with pytest.raises(ConfigError, match="is not allowed"):
        Registry({name: directory(tmp_path / "any")}, home=home)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("name = ", "not readable as TOML"),
        ('name = "x"\nprovidr = "y"', "unknown key 'providr': did you mean 'provider'"),
        ('provider = "y"', "name"),
        ("name = 3", r"Expected `str`, got `int` - at `\$\.name`"),
        ('name = "x"\ninput_modalities = ["smell"]', "smell"),
        ('name = "x"\naliases = ["a b"]', "'a b' is not allowed"),
        ('name = "x"\ncontext_length = 257', "context_length: 257 is not between 1 and .* 256"),
        ('name = "x"\ncontext_length = 100\nmax_output_tokens = 101', "max_output_tokens: 101 is not .* 100"),
        ('name = "x"\nmax_output_tokens = 0', "max_output_tokens: 0"),
    ],
)
def test_bad_metadata_is_named(tmp_path, metadata, message):
    path = directory(tmp_path / "model", metadata=metadata)
    with pytest.raises(ConfigError, match=message):
        ModelEntry.from_directory(path)


@pytest.mark.parametrize("context", [None, 0, True, "8"])
def test_bad_context_lengths_are_named(tmp_path, context):
    with pytest.raises(ConfigError, match="max_position_embeddings"):
        ModelEntry.from_directory(directory(tmp_path / "model", context=context))


def test_home_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("KILONOVA_HOME", str(tmp_path))
    assert models_home() == tmp_path / "models"
    monkeypatch.delenv("KILONOVA_HOME")
    assert models_home().parts[-2:] == ("kilonova", "models")


def test_the_shipped_family_is_listed_without_torch():
    code = (
        "import sys; from kilonova.models.registry import Registry; "
        "Registry(home='/nonexistent'); print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "False"


def adapter(path: Path, base: object = "small", metadata: str | None = None) -> Path:
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    if metadata is not None:
        (path / "kilonova.toml").write_text(metadata)
    return path


def test_an_adapter_is_a_model_of_its_base(home):
    models = Registry(adapters={"polite": ("small", adapter(home.parent / "lora", base="elsewhere"))}, home=home)
    entry, base = models.get("polite"), models.get("orion-small")
    assert (entry.base, entry.adapter, base.base, base.adapter) == ("orion-small", "polite", "", "")
    assert (entry.name, entry.aliases, entry.provider) == ("polite", (), "custom")
    assert (entry.context_length, entry.max_output_tokens) == (base.context_length, base.max_output_tokens)
    assert entry.directory == home.parent / "lora"
    assert [each.name for each in models.entries()] == ["orion-small", "polite"]


def test_imported_adapters_find_their_base(home, tmp_path):
    named = directory(tmp_path / "mine")
    adapter(home / "by-alias", base="acme.orion-small-v1:0")
    adapter(home / "by-directory", base=str(named))
    adapter(home / "by-record", base="elsewhere", metadata='name = "x"\nbase = "mine"\ndisplay_name = "Polite"')
    adapter(home / "lost", base="elsewhere")
    adapter(home / "silent", base=None)
    adapter(home / "nested", base="by-alias")
    adapter(home / "small", base="orion-small")
    models = Registry({"mine": named}, home=home)
    bases = {entry.name: entry.base for entry in models.entries() if entry.base}
    assert bases == {"by-alias": "orion-small", "by-directory": "mine", "by-record": "mine"}
    assert models.get("by-record").display_name == "Polite"
    assert sorted(models.unusable) == ["lost", "nested", "silent", "small"]
    with pytest.raises(ModelNotFound, match="'elsewhere' is no model here; say which is its base"):
        models.get("lost")
    assert "is an adapter itself" in models.unusable["nested"]
    assert "a model has this name already" in models.unusable["small"]
    # Named for this run, it is another.
    again = Registry({"mine": named}, {"lost": ("mine", home / "lost")}, home=home)
    assert again.get("lost").base == "mine"
    assert "lost" not in again.unusable


def test_adapters_that_cannot_be_used(home, tmp_path):
    path = adapter(tmp_path / "lora")
    with pytest.raises(CheckpointError, match="is an adapter: `kilonova serve --adapter`"):
        Registry({"mine": path}, home=home)
    with pytest.raises(ModelNotFound, match="no model 'smaller'"):
        Registry(adapters={"mine": ("smaller", path)}, home=home)
    with pytest.raises(CheckpointError, match="missing"):
        Registry(adapters={"mine": ("small", tmp_path)}, home=home)
    with pytest.raises(ConfigError, match="not allowed"):
        Registry(adapters={"a b": ("small", path)}, home=home)


def test_a_folder_of_components_makes_pictures(home: Path, tmp_path: Path) -> None:
    canvas = tmp_path / "weights" / "canvas"
    canvas.mkdir()
    (canvas / "model_index.json").write_text("{}")
    (canvas / "kilonova.toml").write_text('name = "canvas"\naliases = ["acme.canvas-v1:0"]\n')
    known = Registry(home=home)
    assert [entry.name for entry in known.entries()] == ["orion-small", "canvas"]
    entry = known.get("acme.canvas-v1:0")
    assert entry.makes_pictures
    assert (entry.input_modalities, entry.output_modalities) == (("text", "image"), ("image",))
    assert (entry.context_length, entry.max_output_tokens) == (0, 0)
    assert not known.get("orion-small").makes_pictures
