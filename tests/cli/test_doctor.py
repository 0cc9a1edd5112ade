"""`kilonova doctor`: what it reports, and its exit code."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilonova.cli.doctor import app

NAMES = {"python", "torch", "threads", "processor", "memory", "cuda", "device", "data directory", "disk", "port 8080"}


def diagnose(*arguments: str) -> tuple[int, dict]:
    result = CliRunner().invoke(app, ["--json", *arguments], catch_exceptions=False)
    return result.exit_code, json.loads(result.stdout)


def status_of(report: dict, name: str) -> str:
    (status,) = [check["status"] for check in report["checks"] if check["name"] == name]
    return status


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("KILONOVA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_reports_every_check_and_agrees_with_its_exit_code(tmp_path: Path) -> None:
    exit_code, report = diagnose("--data", str(tmp_path / "data"))

    assert {check["name"] for check in report["checks"]} >= NAMES
    assert report["ok"] == all(check["status"] != "failed" for check in report["checks"])
    assert exit_code == (0 if report["ok"] else 1)
    assert status_of(report, "python") == status_of(report, "torch") == status_of(report, "data directory") == "ok"


def test_data_directory_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    exit_code, report = diagnose("--data", str(tmp_path / "file"))

    assert exit_code == 1
    assert status_of(report, "data directory") == "failed"


def test_a_model_is_loaded(tiny_micro_directory: Path, home: Path) -> None:
    shutil.copytree(tiny_micro_directory, home / "models" / "tiny")

    assert status_of(diagnose()[1], "weights of tiny") == "ok"


def test_a_damaged_model_is_found(tiny_micro_directory: Path, home: Path) -> None:
    shutil.copytree(tiny_micro_directory, home / "models" / "tiny")
    for file in (home / "models" / "tiny").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-100])

    exit_code, report = diagnose()

    assert status_of(report, "weights of tiny") == "failed"
    assert exit_code == 1


@pytest.mark.parametrize(("base", "expected"), [("tiny", "ok"), ("nothing", "warning")])
def test_an_adapter_is_compared_with_its_base(tiny_micro_directory: Path, home: Path, base: str, expected: str) -> None:
    from kilonova.models.adapter import AdapterConfig, attach_adapter, save_adapter
    from kilonova.models.checkpoint import load_decoder

    shutil.copytree(tiny_micro_directory, home / "models" / "tiny")
    decoder = load_decoder(tiny_micro_directory)
    attach_adapter(decoder, AdapterConfig(rank=2))
    save_adapter(decoder, home / "models" / "polite", base=base)

    assert status_of(diagnose()[1], "weights of polite") == expected


def test_a_port_in_use_is_a_warning() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", 8080))
            listener.listen()
        except OSError:
            pass  # something else holds it, which serves as well

        assert status_of(diagnose()[1], "port 8080") == "warning"


def test_table_names_every_check() -> None:
    result = CliRunner().invoke(app, [], env={"COLUMNS": "160"})

    assert all(name in result.stdout for name in NAMES)
