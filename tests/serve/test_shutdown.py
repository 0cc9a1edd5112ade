"""How a server process ends, and what it does when its engine breaks: no answer is cut without its protocol's end."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

# A model whose steps take 30 ms, and whose engine breaks when the file that is named last appears.
PROGRAM = """
import sys, time
from pathlib import Path

from kilonova.engine.runner import ModelRunner
from kilonova.engine.scheduler import Scheduler
from kilonova.serve.run import serve
from kilonova.serve.settings import load_settings

step, schedule, fault = ModelRunner.step, Scheduler.schedule, Path(sys.argv[2])

def slow_step(self, tokens):
    time.sleep(0.03)
    return step(self, tokens)

def faulty_schedule(self):
    if fault.exists():
        fault.unlink()
        raise RuntimeError("a fault in the scheduler")
    return schedule(self)

ModelRunner.step, Scheduler.schedule = slow_step, faulty_schedule
serve(load_settings(Path(sys.argv[1]), {}), on_ready=lambda running: print(running.url, flush=True))
"""

CONFIG = """
[server]
port = 0
data = "data"
grace_seconds = {grace}
[models]
tiny = "{model}"
[engine]
max_num_seqs = 4
speculate = false
[telemetry]
log_format = "json"
"""

LONG = {"model": "tiny", "prompt": "the quick", "max_tokens": 480, "temperature": 0}


class Served:
    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder
        assert process.stdout is not None
        self.url = process.stdout.readline().strip()
        assert self.url, (folder / "log").read_text()
        self.runtime = boto3.client(
            "bedrock-runtime",
            endpoint_url=self.url,
            region_name="eu-west-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=Config(retries={"total_max_attempts": 1}, max_pool_connections=20),
        )

    def get(self, path: str) -> tuple[int, bytes]:
        return self.fetch(urllib.request.Request(self.url + path))

    def complete(self, **more: Any) -> tuple[int, bytes]:
        """Status and whole body of a long completion."""
        body = json.dumps({**LONG, **more}).encode()
        headers = {"content-type": "application/json"}
        return self.fetch(urllib.request.Request(f"{self.url}/v1/completions", data=body, headers=headers))

    @staticmethod
    def fetch(request: urllib.request.Request) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def converse_stream(self) -> list[str]:
        """The names of the events of a long stream, with the exception's at the end if there is one."""
        names: list[str] = []
        try:
            response = self.runtime.converse_stream(
                modelId="tiny",
                messages=[{"role": "user", "content": [{"text": "go on"}]}],
                inferenceConfig={"maxTokens": 400},
                additionalModelRequestFields={},
            )
            for event in response["stream"]:
                names.append(next(iter(event)))  # noqa: PERF401
        except EventStreamError as error:
            names.append(error.response["Error"]["Code"])
        except ClientError as error:
            names.append(f"{error.response['ResponseMetadata']['HTTPStatusCode']} {error.response['Error']['Code']}")
        return names

    def wait_for(self, predicate: Callable[[dict[str, Any]], bool]) -> None:
        deadline = time.monotonic() + 60
        while not predicate(json.loads(self.get("/health")[1])["models"]["tiny"]):
            assert time.monotonic() < deadline, self.get("/health")
            time.sleep(0.02)

    def rows(self) -> list[tuple[str, str]]:
        """Operation and status of every row of the ledger."""
        with sqlite3.connect(self.folder / "data" / "kilonova.db") as database:
            return database.execute("SELECT operation, status FROM calls").fetchall()


@pytest.fixture
def start(tmp_path: Path, tiny_micro_directory: Path) -> Iterator[Callable[[float], Served]]:
    processes: list[subprocess.Popen[str]] = []

    def launch(grace: float) -> Served:
        (tmp_path / "kilonova.toml").write_text(CONFIG.format(grace=grace, model=tiny_micro_directory))
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(tmp_path / "kilonova.toml"), str(tmp_path / "fault")],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        processes.append(process)
        return Served(process, tmp_path)

    yield launch
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def in_threads(*tasks: Callable[[], Any]) -> tuple[list[threading.Thread], dict[int, Any]]:
    results: dict[int, Any] = {}

    def run(index: int, task: Callable[[], Any]) -> None:
        results[index] = task()

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(tasks)]
    for thread in threads:
        thread.start()
    return threads, results


def test_every_answer_gets_its_protocols_end_when_the_grace_period_is_over(start: Callable[[float], Served]) -> None:
    server = start(1.0)
    # Of each kind one runs and one waits.
    tasks = [lambda: server.complete(stream=True), server.converse_stream, server.complete]
    threads, results = in_threads(*tasks)
    server.wait_for(lambda model: model["running"] == 3)
    filler, filled = in_threads(lambda: server.complete(stream=True))
    server.wait_for(lambda model: model["running"] == 4)
    late, waiting = in_threads(server.complete, server.converse_stream, lambda: server.complete(stream=True))
    server.wait_for(lambda model: model["waiting"] == 3)
    assert server.get("/health/ready")[0] == 200

    server.process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    while server.get("/health/ready")[0] == 200:
        assert time.monotonic() < told + 0.5
    assert server.get("/health/live")[0] == 200
    assert b"kilonova_stopping 1.0" in server.get("/metrics")[1]
    status, body = server.complete(stream=True)
    assert (status, json.loads(body)["error"]["code"]) == (503, "unavailable")

    for thread in (*threads, *filler, *late):
        thread.join(timeout=30)
    for status, body in (results[0], filled[0]):
        events = body.decode().strip().split("\n\n")
        assert status == 200
        assert len(events) > 3
        assert events[-1] == "data: [DONE]"
        assert json.loads(events[-2].partition("data: ")[2])["error"]["code"] == "unavailable"
    assert results[1][0] == "messageStart"
    assert results[1][-1] == "serviceUnavailableException"
    assert results[2][0] == 503
    assert waiting[0][0] == 503
    assert waiting[1] == ["503 ServiceUnavailableException"]
    assert waiting[2][0] == 503
    assert server.process.wait(timeout=30) == 0
    log = [json.loads(line) for line in (server.folder / "log").read_text().splitlines()]
    assert not any("traceback" in line for line in log if line["level"] != "error"), log
    rows = server.rows()
    # The one that came too late never had a place.
    assert len(rows) == 7
    assert "running" not in {status for _, status in rows}


def test_a_second_signal_does_not_wait(start: Callable[[float], Served]) -> None:
    server = start(60.0)
    threads, results = in_threads(lambda: server.complete(stream=True))
    server.wait_for(lambda model: model["running"] == 1)
    server.process.send_signal(signal.SIGTERM)
    while server.get("/health/ready")[0] == 200:
        time.sleep(0.01)
    threads[0].join(timeout=0.3)
    assert threads[0].is_alive()
    server.process.send_signal(signal.SIGTERM)
    threads[0].join(timeout=5)
    assert results[0][1].endswith(b"data: [DONE]\n\n")
    assert server.process.wait(timeout=30) == 0


def test_a_broken_engine_is_replaced_and_its_requests_are_answered(start: Callable[[float], Served]) -> None:
    server = start(1.0)
    threads, results = in_threads(lambda: server.complete(stream=True), server.converse_stream, *[server.complete] * 4)
    server.wait_for(lambda model: model["running"] == 4 and model["waiting"] == 2)
    (server.folder / "fault").touch()
    for thread in threads:
        thread.join(timeout=30)
    assert len(results) == 6
    for result in results.values():
        if isinstance(result, list):
            assert result[-1] in ("modelStreamErrorException", "424 ModelErrorException")
        else:
            status, body = result
            assert status == 500 or (status == 200 and body.endswith(b"data: [DONE]\n\n") and b'"error"' in body)

    deadline = time.monotonic() + 60
    seen = set()
    while (answer := server.get("/health/ready"))[0] != 200:
        seen.add(json.loads(answer[1])["status"])
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert seen <= {"restarting"}
    status, body = server.complete(max_tokens=3)
    assert status == 200
    metrics = server.get("/metrics")[1].decode()
    assert 'kilonova_engine_restarts_total{model="tiny"} 1.0' in metrics
    assert 'kilonova_engine_up{model="tiny"} 1.0' in metrics
    assert 'kilonova_engine_kv_blocks{model="tiny",state="used"} 0.0' in metrics
    assert {status for _, status in server.rows()} <= {"finished", "failed"}
