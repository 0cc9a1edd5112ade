"""The ledger of a real server: its tokens, its end under SIGTERM, and what is left of it under SIGKILL."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.serve.conftest import Server, run_server

from kilonova.serve.database import Database, default_url
from kilonova.serve.ledger.tables import calls


def read(url: str) -> list[Any]:
    database = Database(url)
    try:
        with database.engine.connect() as connection:
            return list(connection.execute(sa.select(calls).order_by(calls.c.started_at)))
    finally:
        database.close()


def wait_for(url: str, count: int) -> list[Any]:
    """The ledger once `count` calls in it are over."""
    deadline = time.monotonic() + 20
    while sum(row.status != "running" for row in read(url)) < count:
        assert time.monotonic() < deadline, read(url)
        time.sleep(0.05)
    return read(url)


@contextmanager
def streaming(server: Server, max_tokens: int) -> Iterator[http.client.HTTPResponse]:
    """The answer to a request that streams up to `max_tokens` tokens, and breaks off when it is left."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    try:
        yield connection.getresponse()
    finally:
        connection.close()


def test_tokens_are_those_that_were_answered_or_made_until_the_client_went(
    tiny_micro_directory: Path, tmp_path: Path
) -> None:
    url = default_url(tmp_path / "data")
    with run_server(tmp_path, "--model", f"tiny={tiny_micro_directory}") as server:
        with streaming(server, 20) as response:
            usage = json.loads(response.read().split(b"data: ")[-2])["usage"]
        with streaming(server, 200) as response:
            for _ in range(7):
                response.readline()
        finished, cancelled = wait_for(url, 2)
        with streaming(server, 200) as response:
            response.readline()
            server.process.terminate()
            response.read()
    stopped = read(url)[-1]

    assert (finished.status, finished.stop_reason, finished.output_tokens) == ("finished", "max_tokens", 20)
    assert usage["completion_tokens"] == 20
    assert usage["prompt_tokens"] == finished.input_tokens + finished.cache_read_tokens + finished.cache_write_tokens
    assert 0 < finished.time_to_first_token < finished.latency
    assert (cancelled.status, cancelled.http_status) == ("cancelled", 200)
    assert 2 <= cancelled.output_tokens < 200
    # A server that is asked to stop lets running answers finish.
    assert (stopped.status, stopped.output_tokens) == ("finished", 200)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_killed_server_leaves_one_row_for_each_accepted_request(
    kind: str, tiny_micro_directory: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = default_url(tmp_path / "data")
    if kind == "postgresql":
        url = request.getfixturevalue("new_postgres_database")()
    accepted: list[str] = []
    is_over = threading.Event()
    arguments = ("--model", f"tiny={tiny_micro_directory}", "--database", url)

    def keep_asking(server: Server, client: int) -> None:
        count = 0
        while not is_over.is_set():
            count += 1
            try:
                with streaming(server, 8 if count % 2 else 200) as response:
                    if response.status == 200:
                        accepted.append(response.headers["x-request-id"])
                    if client % 3 == 0 and count % 4 == 0:
                        response.readline()  # And goes.
                    else:
                        response.read()
            except (OSError, http.client.HTTPException):
                pass

    with run_server(tmp_path, *arguments, may_fail=True, exit_code=-9) as server:
        clients = [threading.Thread(target=keep_asking, args=(server, index)) for index in range(12)]
        for client in clients:
            client.start()
        deadline = time.monotonic() + 120
        while len(accepted) < 60:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.process.kill()
        server.process.wait()
        is_over.set()
        for client in clients:
            client.join()

    was_running = sum(row.status == "running" for row in read(url))
    with run_server(tmp_path, *arguments) as server:
        rows = read(url)
        with streaming(server, 3) as response:
            response.read()
        wait_for(url, len(rows) + 1)

    assert len(set(accepted)) == len(accepted)
    times = Counter(row.id for row in rows)
    assert {identifier: times[identifier] for identifier in accepted} == dict.fromkeys(accepted, 1)
    statuses = Counter(row.status for row in rows)
    assert statuses["lost"] == was_running > 0
    assert statuses["finished"] > 0
    assert statuses["running"] == 0
    assert read(url)[-1].status == "finished"
