"""Servers that real clients talk to: one real process, and one whose engine plays a script."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import openai
import pytest
from botocore.config import Config

from kilonova.core.errors import ModelNotFound
from kilonova.core.types import Finished, GenerationEvent, GenerationRequest, Usage
from kilonova.engine.generation import Progress

from .postgres import run_postgres


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Server:
    """A running server and the clients that talk to it."""

    url: str
    process: subprocess.Popen[bytes] | None = None
    clients: dict[str, Any] = field(default_factory=dict)

    def boto3(self, service: str) -> Any:
        if service not in self.clients:
            self.clients[service] = boto3.client(
                service,
                endpoint_url=self.url,
                region_name="eu-west-1",
                aws_access_key_id="local",
                aws_secret_access_key="local",
                config=Config(retries={"total_max_attempts": 1}, read_timeout=60, parameter_validation=False),
            )
        return self.clients[service]

    @property
    def openai(self) -> openai.OpenAI:
        if "openai" not in self.clients:
            self.clients["openai"] = openai.OpenAI(
                base_url=f"{self.url}/v1", api_key="local", max_retries=0, timeout=60
            )
        return self.clients["openai"]

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/health", timeout=10) as response:
            return json.load(response)

    def post(
        self, path: str, body: bytes | dict[str, Any], headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers (lower-case names) and JSON body of a plain POST."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data=data, headers={"content-type": "application/json", **(headers or {})}
        )
        try:
            response = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            return response.status, {k.lower(): v for k, v in response.headers.items()}, json.load(response)

    def wait_until_idle(self, seconds: float = 10) -> dict[str, Any]:
        """The health report once nothing runs or waits."""
        deadline = time.monotonic() + seconds
        while True:
            report = self.health()
            if all(model["running"] == model["waiting"] == 0 for model in report["models"].values()):
                return report
            assert time.monotonic() < deadline, report
            time.sleep(0.02)


@contextlib.contextmanager
def run_server(directory: Path, *arguments: str, may_fail: bool = False, exit_code: int = 0) -> Iterator[Server]:
    """`kilonova serve` as a process of its own, which keeps its data and its log in `directory`.

    Unless it `may_fail`, there must be no traceback in its log.
    """
    port = free_port()
    command = [str(Path(sys.executable).with_name("kilonova")), "serve", "--port", str(port)]
    command += ["--data", str(directory / "data"), *arguments]
    with (directory / "log").open("wb") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        running = Server(f"http://127.0.0.1:{port}", process)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    running.health()
                    break
                except OSError:
                    assert process.poll() is None, (directory / "log").read_text()
                    assert time.monotonic() < deadline, (directory / "log").read_text()
                    time.sleep(0.1)
            yield running
        finally:
            process.terminate()
            code = process.wait(timeout=30)
        assert code == exit_code, (directory / "log").read_text()
        assert may_fail or "Traceback" not in (directory / "log").read_text(), (directory / "log").read_text()


@pytest.fixture(scope="session")
def server(tiny_micro_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the random model, under the name `tiny`."""
    with run_server(tmp_path_factory.mktemp("server"), "--model", f"tiny={tiny_micro_directory}") as running:
        yield running


Script = Callable[[GenerationRequest], Sequence[GenerationEvent | Exception | float]]


class ScriptedGeneration:
    """Events of a script, in which numbers are pauses in seconds and exceptions are raised."""

    def __init__(self, engine: ScriptedEngine, steps: Sequence[GenerationEvent | Exception | float]) -> None:
        self._engine = engine
        self._steps = steps
        engine.running.add(self)

    async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        for step in self._steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                yield step
        self._engine.running.discard(self)

    def cancel(self) -> None:
        self._engine.running.discard(self)

    def fail(self, error: Exception) -> None:
        self._steps = [error]

    def progress(self) -> Progress:
        finished = next((step for step in self._steps if isinstance(step, Finished)), None)
        return Progress(Usage(7, 0), 0.0, None) if finished is None else Progress(finished.usage, 0.0, "end_turn")


class ScriptedEngine:
    """Stands in for the engine where a test needs an event that a random model does not produce on demand."""

    def __init__(self, script: Script, tokenizer: Any) -> None:
        self.script = script
        self.tokenizer = tokenizer
        self.requests: list[GenerationRequest] = []
        self.running: set[ScriptedGeneration] = set()

    def submit(self, request: GenerationRequest) -> ScriptedGeneration:
        self.requests.append(request)
        steps = self.script(request)
        if steps and isinstance(steps[0], Exception):
            raise steps[0]
        return ScriptedGeneration(self, steps)

    def count_tokens(self, request: GenerationRequest) -> int:
        self.requests.append(request)
        return 7

    def stats(self) -> Any:
        return SimpleNamespace(running=len(self.running), waiting=0)

    def close(self) -> None:
        self.running.clear()


class ScriptedModels:
    """The entry of a text model, under Micro's names, and its scripted engine."""

    def __init__(self, entry: Any, engine: ScriptedEngine) -> None:
        self._entry = entry
        self._engine = engine

    def entries(self) -> list[Any]:
        return [self._entry]

    def resolve(self, identifier: str) -> Any:
        if identifier not in (self._entry.name, *self._entry.aliases):
            raise ModelNotFound(f"no model {identifier!r}")
        return self._entry

    async def engine(self, entry: Any) -> ScriptedEngine:
        return self._engine

    def health(self) -> dict[str, Any]:
        return {self._entry.name: {"loaded": True, "running": len(self._engine.running), "waiting": 0}}

    engines: Mapping[str, Any] = {}
    studios: Mapping[str, Any] = {}
    restarts: Mapping[str, int] = {}
    down: Sequence[str] = ()

    def check(self) -> list[str]:
        return []

    def close(self) -> None:
        self._engine.close()


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The database of the servers whose engine plays a script."""
    from kilonova.serve.database import Database, default_url

    opened = Database(default_url(tmp_path_factory.mktemp("database")))
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def play(
    tiny_entry: Any, tiny_tokenizer_directory: Path, database: Any
) -> Iterator[Callable[..., tuple[Server, ScriptedEngine]]]:
    """Starts servers whose engine plays a script, with options of `create_app`."""
    import uvicorn

    from kilonova.serve.app import create_app
    from kilonova.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_directory(tiny_tokenizer_directory)
    started: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(script: Script, **options: Any) -> tuple[Server, ScriptedEngine]:
        engine = ScriptedEngine(script, tokenizer)
        port = free_port()
        app = create_app(ScriptedModels(tiny_entry, engine), **{"database": database, **options})  # type: ignore[arg-type]
        config = uvicorn.Config(app, port=port, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
        uvicorn_server = uvicorn.Server(config)
        thread = threading.Thread(target=uvicorn_server.run, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not uvicorn_server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        started.append((uvicorn_server, thread))
        return Server(f"http://127.0.0.1:{port}"), engine

    yield start
    for uvicorn_server, thread in started:
        uvicorn_server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture(scope="session")
def tiny_entry(tiny_micro_directory: Path) -> Any:
    """The random model's registry entry, under Micro's names."""
    import dataclasses

    from kilonova.models.registry import ModelEntry

    entry = ModelEntry.from_directory(tiny_micro_directory, name="micro")
    return dataclasses.replace(entry, aliases=("amazon.nova-micro-v1:0",))


@pytest.fixture(scope="session")
def new_postgres_database() -> Iterator[Callable[[], str]]:
    """Makes empty databases in a PostgreSQL server of the tests' own, and returns their URLs."""
    with run_postgres() as new_database:
        yield new_database
