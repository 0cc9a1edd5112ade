import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from tests.serve.ledger.conftest import make_row

from kilonova.core.errors import Unavailable
from kilonova.serve.database import Database
from kilonova.serve.ledger import writer
from kilonova.serve.ledger.tables import calls, servers
from kilonova.serve.ledger.writer import LedgerWriter


def read(database: Database) -> dict[str, Any]:
    with database.engine.connect() as connection:
        return {row.id: row for row in connection.execute(sa.select(calls))}


def is_there(database: Database, identifier: str) -> bool:
    with database.engine.connect() as connection:
        return connection.scalar(sa.select(calls.c.status).where(calls.c.id == identifier)) == "running"


def wait_for_status(database: Database, identifier: str, status: str) -> None:
    deadline = time.monotonic() + 20
    while read(database)[identifier].status != status:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def writing(database: Database) -> Iterator[LedgerWriter]:
    ledger_writer = LedgerWriter(database)
    try:
        yield ledger_writer
    finally:
        ledger_writer.stop()


def open_in_order(ledger_writer: LedgerWriter, *rows: dict[str, Any]) -> list[BaseException | None]:
    async def run() -> list[BaseException | None]:
        return await asyncio.gather(*(ledger_writer.open(row) for row in rows), return_exceptions=True)

    return asyncio.run(run())


def test_hundreds_of_calls_from_many_threads_have_one_row_each(any_database: Database) -> None:
    commits = []
    sa.event.listen(any_database.engine, "commit", commits.append)
    missing = []

    with writing(any_database) as ledger_writer:

        async def call(identifier: str) -> None:
            await ledger_writer.open(make_row(identifier))
            if not await asyncio.to_thread(is_there, any_database, identifier):
                missing.append(identifier)
            ledger_writer.close(make_row(identifier, status="finished", output_tokens=7))

        async def calls_of(thread: int) -> None:
            await asyncio.gather(*(call(f"{thread}-{index}") for index in range(50)))

        threads = [threading.Thread(target=lambda n=n: asyncio.run(calls_of(n))) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    rows = read(any_database)
    assert missing == []
    assert rows.keys() == {f"{thread}-{index}" for thread in range(8) for index in range(50)}
    assert {(row.status, row.output_tokens) for row in rows.values()} == {("finished", 7)}
    assert len(commits) < 400  # Of 400 rows that were written twice.


def test_stopping_writes_what_waits(sqlite_database: Database) -> None:
    with writing(sqlite_database) as ledger_writer:
        for index in range(500):
            ledger_writer.close(make_row(str(index), status="refused"))
    assert len(read(sqlite_database)) == 500
    with sqlite_database.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(servers)) == 0


def test_a_locked_database_refuses_calls_and_loses_no_end(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "OPEN_SECONDS", 0.3)
    with writing(sqlite_database) as ledger_writer:
        assert open_in_order(ledger_writer, make_row("before")) == [None]
        other = sqlite3.connect(sqlite_database.url.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        (error,) = open_in_order(ledger_writer, make_row("meanwhile"))
        assert isinstance(error, Unavailable)
        assert time.monotonic() - started < 5
        ledger_writer.close(make_row("before", status="finished"))
        ledger_writer.close(make_row("meanwhile", status="failed", error="ServiceUnavailableException"))
        other.execute("COMMIT")
        other.close()
        wait_for_status(sqlite_database, "before", "finished")
        assert open_in_order(ledger_writer, make_row("after")) == [None]
    assert {row.id: row.status for row in read(sqlite_database).values()} == {
        "before": "finished",
        "meanwhile": "failed",
        "after": "running",
    }


def test_a_full_disk_refuses_calls_until_there_is_room(sqlite_database: Database) -> None:
    def set_most_pages(pages: int) -> None:
        sqlite_database.close()
        room["pages"] = pages

    room = {"pages": 2**30}
    sa.event.listen(
        sqlite_database.engine, "connect", lambda each, _: each.execute(f"PRAGMA max_page_count={room['pages']}")
    )
    big = {"request_metadata": {"text": "x" * 100_000}}
    with writing(sqlite_database) as ledger_writer:
        assert open_in_order(ledger_writer, make_row("before")) == [None]
        set_most_pages(1)  # Which SQLite takes as the present size.
        (error,) = open_in_order(ledger_writer, make_row("meanwhile", **big))
        assert isinstance(error, Unavailable)
        ledger_writer.close(make_row("before", status="finished", **big))
        time.sleep(0.3)
        assert read(sqlite_database)["before"].status == "running"
        set_most_pages(2**30)
        wait_for_status(sqlite_database, "before", "finished")
    assert read(sqlite_database).keys() == {"before"}


def test_one_impossible_row_harms_no_other(sqlite_database: Database, caplog: pytest.LogCaptureFixture) -> None:
    with writing(sqlite_database) as ledger_writer:
        good = [make_row(str(index)) for index in range(20)]
        outcomes = open_in_order(ledger_writer, *good[:10], make_row("impossible", price=2**70), *good[10:])
        assert [type(outcome) for outcome in outcomes] == [type(None)] * 10 + [Unavailable] + [type(None)] * 10
        for row in good[:10]:
            ledger_writer.close({**row, "status": "finished"})
        ledger_writer.close(make_row("impossible", price=2**70, status="finished"))
        for row in good[10:]:
            ledger_writer.close({**row, "status": "finished"})
    assert {row.id: row.status for row in read(sqlite_database).values()} == {str(i): "finished" for i in range(20)}
    assert '"impossible"' in caplog.text


def test_refusals_are_forgotten_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_UNWRITTEN_REFUSALS", 2)
    rows = [make_row(str(index), status="refused" if index % 2 else "finished") for index in range(10)]
    assert [row["id"] for row in writer._without_old_refusals(rows)] == ["0", "2", "4", "6", "7", "8", "9"]


def test_calls_of_dead_servers_are_lost_and_of_living_ones_are_not(any_database: Database) -> None:
    now = int(time.time() * 1000)
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        born = psutil.Process(sleeper.pid).create_time()
        here = writer._host()
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        known = {
            "living here": (here, sleeper.pid, born, now - 600_000),
            "dead here": (here, dead.pid, born, now),
            "another process of that id": (here, sleeper.pid, born - 100, now),
            "living elsewhere": ("elsewhere", 1, 0.0, now - 30_000),
            "silent elsewhere": ("elsewhere", 2, 0.0, now - 90_000),
        }
        names = ("host", "process_id", "process_started", "seen_at")
        with any_database.write() as connection:
            for identifier, values in known.items():
                connection.execute(servers.insert(), {"id": identifier, **dict(zip(names, values, strict=True))})
            for identifier in (*known, "unknown"):
                connection.execute(calls.insert(), make_row(f"{identifier}, running", server_id=identifier))
                row = make_row(f"{identifier}, finished", server_id=identifier, status="finished")
                connection.execute(calls.insert(), row)
        with writing(any_database) as ledger_writer:
            statuses = {row.id: row.status for row in read(any_database).values()}
            # A server that was only thought to be dead still has the last word.
            ledger_writer.close(make_row("silent elsewhere, running", status="finished"))
            wait_for_status(any_database, "silent elsewhere, running", "finished")
    finally:
        sleeper.communicate()
    assert {identifier for identifier, status in statuses.items() if status == "lost"} == {
        "dead here, running",
        "another process of that id, running",
        "silent elsewhere, running",
        "unknown, running",
    }
    with any_database.engine.connect() as connection:
        assert set(connection.scalars(sa.select(servers.c.id))) == {"living here", "living elsewhere"}


def test_a_server_says_that_it_lives(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "HEARTBEAT_SECONDS", 0.05)

    def seen(connection: sa.Connection) -> int:
        return connection.scalar(sa.select(servers.c.seen_at))

    with writing(sqlite_database):
        with sqlite_database.engine.connect() as connection:
            first = seen(connection)
        deadline = time.monotonic() + 10
        while True:
            with sqlite_database.engine.connect() as connection:
                if seen(connection) > first:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.02)
