"""`kilonova.toml`: every setting is there, documented, checked, and overridden in order."""

import dataclasses
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import get_type_hints

import pytest

from kilonova.core.errors import ConfigError
from kilonova.serve.settings import Settings, default_file, load_settings

DOCS = Path(__file__).parents[2] / "docs" / "operate.md"


def write(folder: Path, text: str) -> Path:
    path = folder / "kilonova.toml"
    path.write_text(text)
    return path


def test_the_default_file_holds_every_setting_and_means_the_defaults(tmp_path: Path) -> None:
    text = default_file()
    assert load_settings(write(tmp_path, text), {}, {}) == Settings()
    for section, kind in get_type_hints(Settings).items():
        assert f"[{section}]" in text
        for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
            assert f"\n{field.name} = " in text or f"# {field.name} = " in text or field.name == "models", field.name


def test_values_that_are_commented_out_are_valid_ones(tmp_path: Path) -> None:
    text = default_file()
    for line, value in (
        ('# database = "..."', 'database = "sqlite:///a.db"'),
        ("# max_context = 0", "max_context = 64"),
    ):
        assert line in text
        text = text.replace(line, value)
    settings = load_settings(write(tmp_path, text), {}, {})
    assert settings.server.database == "sqlite:///a.db"
    assert settings.engine.max_context == 64


def test_the_page_shows_the_file() -> None:
    assert f"```toml\n{default_file()}```" in DOCS.read_text()


def test_the_command_prints_the_file() -> None:
    command = [str(Path(sys.executable).with_name("kilonova")), "serve", "--print-config"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == default_file()


def test_the_command_line_overrides_the_environment_and_that_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[server]\nport = 1\nhost = '::1'\ngrace_seconds = 3\n[telemetry]\nlog_format = 'json'")
    environment = {
        "KILONOVA_SERVER_PORT": "2",
        "KILONOVA_SERVER_HOST": "127.0.0.2",
        "KILONOVA_ENGINE_SPECULATE": "false",
    }
    settings = load_settings(path, {"server": {"port": 3, "host": None}}, environment)
    assert settings.server.port == 3
    assert settings.server.host == "127.0.0.2"
    assert settings.server.grace_seconds == 3
    assert settings.telemetry.log_format == "json"
    assert not settings.engine.speculate


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = "[server]\ndata='d'\n[models]\na='m'\nb='/m'\n[adapters]\nc='amazon.nova-micro-v1:0:l'\n[drafts]\na='s'"
    settings = load_settings(write(tmp_path, text), {}, {})
    assert settings.server.data == str(tmp_path / "d")
    assert settings.models == {"a": str(tmp_path / "m"), "b": "/m"}
    assert settings.adapters == {"c": f"amazon.nova-micro-v1:0:{tmp_path / 'l'}"}
    assert settings.drafts == {"a": str(tmp_path / "s")}


def test_prices_are_exact(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, "[prices.models.mine]\ninput = 0.035\noutput = 1"), {}, {})
    assert settings.prices.models["mine"].input == Decimal("0.035")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1", "unknown key 'server.prot': did you mean 'port'?"),
        ("[sever]\nport = 1", "unknown key 'sever': did you mean 'server'?"),
        ("[server]\nport = 70000", "server.port"),
        ("[server]\nport = '80'", "server.port"),
        ("[limits]\nqueue_seconds = 0", "limits.queue_seconds"),
        ("[telemetry]\nlog_format = 'xml'", "telemetry.log_format"),
        ("[engine]\nmax_num_seqs = 0", "max_num_seqs"),
        ("[prices.models.mine]\ninputs = 1", "unknown key 'prices.models.mine.inputs': did you mean 'input'?"),
        ("[server", "not valid TOML"),
        ("server = 1", "server"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text), {}, {})
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        load_settings(tmp_path / "nothing.toml", {}, {})


def test_wrong_environment_values_are_named() -> None:
    with pytest.raises(ConfigError, match="KILONOVA_SERVER_PORT"):
        load_settings(None, {}, {"KILONOVA_SERVER_PORT": "eighty"})
