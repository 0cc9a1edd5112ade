"""`kilonova serve`: its options, and its banner, whose lines are run as a reader would."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.tiny_canvas import write_tiny_canvas
from typer.testing import CliRunner

from kilonova.cli.serve import app, client_lines, print_banner
from kilonova.core.errors import ConfigError, KilonovaError
from kilonova.models.registry import ModelEntry, Registry
from kilonova.serve.origins import is_loopback
from kilonova.serve.run import Running

KILONOVA = str(Path(sys.executable).with_name("kilonova"))


@contextmanager
def running_server(*arguments: str, cwd: Path) -> Iterator[str]:
    """Start `kilonova serve` in `cwd`, yield what it printed until it was ready, and stop it."""
    command = [KILONOVA, "serve", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd) as server:
        assert server.stdout is not None
        try:
            banner = ""
            for line in server.stdout:
                banner += line
                if "Ctrl-C" in line:
                    break
            yield banner
        finally:
            server.terminate()
            server.stdout.read()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_printed_lines_work_in_a_shell(tiny_micro_directory: Path, tmp_path: Path) -> None:
    arguments = ["--port", str(free_port()), "--model", f"tiny={tiny_micro_directory}", "--data", str(tmp_path)]
    with running_server(*arguments, cwd=tmp_path) as banner:
        assert "tiny" in banner
        assert "only this machine" in banner
        lines = [line for line in banner.splitlines() if " -c " in line or line.startswith("curl ")]
        assert len(lines) == 3
        outputs = [
            subprocess.run(
                ["bash", "-c", line], capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path
            ).stdout
            for line in lines
        ]

    boto3_output, openai_output, curl_output = outputs
    assert "'role': 'assistant'" in boto3_output
    assert openai_output.strip()
    assert json.loads(curl_output)["choices"][0]["message"]["role"] == "assistant"


def test_client_lines_quote_any_model_name() -> None:
    running = Running(url="http://127.0.0.1:8080", needs_key=False, authority=None)
    for line in client_lines(running, "micro", "amazon.nova-micro-v1:0").values():
        subprocess.run(["bash", "-n", "-c", line], check=True)
        assert "\n" not in line


def test_a_picture_model_is_asked_for_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running = Running(url="http://127.0.0.1:9000", needs_key=False, authority=None)
    painter = ModelEntry.from_directory(write_tiny_canvas(tmp_path / "painter"))
    print_banner(running, "127.0.0.1", [painter, Registry(home=tmp_path / "none").get("micro")])
    printed = capsys.readouterr().out
    assert 'images.generate(model="painter"' in printed
    assert 'chat.completions.create(model="micro"' in printed
    (line,) = [line for line in printed.splitlines() if "picture.png" in line]
    subprocess.run(["bash", "-n", "-c", line], check=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_machines_need_an_explicit_flag(host: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--host", host, "--data", str(tmp_path)])

    assert isinstance(result.exception, ConfigError)
    assert "--open" in str(result.exception)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_addresses(host: str) -> None:
    assert is_loopback(host)


def test_banner_warns_when_other_machines_can_reach_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running = Running(url="http://0.0.0.0:9000", needs_key=False, authority=None)
    print_banner(running, "0.0.0.0", [Registry(home=tmp_path).get("micro")])

    printed = capsys.readouterr().out
    assert "anyone who can reach this machine can use it" in printed
    assert "http://127.0.0.1:9000/v1" in printed


def test_lines_take_keys_from_the_environment_and_trust_the_servers_own_authority(tmp_path: Path) -> None:
    running = Running(url="https://127.0.0.1:8080", needs_key=True, authority=tmp_path / "a b" / "ca.pem")
    lines = client_lines(running, "micro", "amazon.nova-micro-v1:0")

    assert all("ca.pem" in line and "local" not in line for line in lines.values())
    assert '"authorization: Bearer $OPENAI_API_KEY"' in lines["curl"]
    for line in lines.values():
        subprocess.run(["bash", "-n", "-c", line], check=True)


def test_banner_writes_ipv6_addresses_in_brackets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running = Running(url="http://[::1]:9000", needs_key=False, authority=None)
    print_banner(running, "::1", [Registry(home=tmp_path).get("micro")])

    assert "http://[::1]:9000" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["nameonly", "=somewhere", "tiny=", "tiny=/nowhere"])
def test_wrong_model_arguments_are_refused(model: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--port", str(free_port()), "--data", str(tmp_path), "--model", model])

    assert isinstance(result.exception, KilonovaError)


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        (["polite"], "NAME=BASE:DIR is expected"),
        (["polite=micro"], "NAME=BASE:DIR is expected"),
        (["polite=micro:"], "NAME=BASE:DIR is expected"),
        (["polite=micro:a", "polite=micro:b"], "given twice"),
        (["polite=nothing:{}"], "no model 'nothing'"),
        (["polite=amazon.nova-micro-v1:0:/nowhere"], "/nowhere/adapter_config.json: the file is missing"),
        (["micro=micro:{}"], "a model has this name already"),
    ],
)
def test_wrong_adapter_arguments_are_refused(adapters: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    options = [part for adapter in adapters for part in ("--adapter", adapter.format(tmp_path))]
    result = CliRunner().invoke(app, ["--port", str(free_port()), "--data", str(tmp_path), *options])

    assert isinstance(result.exception, KilonovaError)
    assert message in str(result.exception)


def test_a_port_in_use_is_named(tiny_micro_directory: Path, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        result = subprocess.run(
            [KILONOVA, "serve", "--port", str(port), "--model", f"tiny={tiny_micro_directory}", "--data", tmp_path],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert result.returncode == 1
    assert str(port) in result.stderr
    assert "Traceback" not in result.stderr
