"""The thread that writes the ledger: many calls in one transaction, and nothing lost when the database fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import msgspec
import psutil
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError, StatementError

from kilonova.core.errors import KilonovaError, Unavailable
from kilonova.serve.database import Database
from kilonova.serve.ledger.tables import calls, servers

logger = logging.getLogger(__name__)

Row = dict[str, Any]

# How long a call may wait for its row before it is refused.
OPEN_SECONDS = 5.0
# How often a server says that it lives, and after how long a silence another one counts as dead.
HEARTBEAT_SECONDS = 15.0
LEASE_SECONDS = 60.0
# How long the last rows may take to be written when the server stops.
STOP_SECONDS = 10.0
# Refused calls that are remembered while the database fails; those of calls that have run are never dropped.
MAX_UNWRITTEN_REFUSALS = 10_000

# Before the next attempt, by how many have failed in a row.
_PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)


@dataclass(frozen=True, slots=True)
class _Open:
    row: Row
    done: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


@dataclass(frozen=True, slots=True)
class _Close:
    row: Row


class LedgerWriter:
    """Writes rows of `calls` on a thread of its own; whatever waits when it gets to it goes into one transaction.

    Making one registers this server and gives the running calls of dead ones their end, `lost`. Raises
    KilonovaError when that fails.
    """

    def __init__(self, database: Database) -> None:
        self.server_id = uuid.uuid4().hex
        self._database = database
        insert = (postgresql if database.engine.dialect.name == "postgresql" else sqlite).insert
        self._insert = insert(calls).on_conflict_do_nothing(index_elements=["id"])
        # Also right where the row is missing: it may have been refused by the database when the call began.
        replaced = {column.name: insert(calls).excluded[column.name] for column in calls.c if column.name != "id"}
        self._replace = insert(calls).on_conflict_do_update(index_elements=["id"], set_=replaced)
        register = insert(servers)
        self._register = register.on_conflict_do_update(
            index_elements=["id"], set_={"seen_at": register.excluded.seen_at}
        )
        self._queue: SimpleQueue[_Open | _Close | None] = SimpleQueue()
        self._failures = 0
        try:
            self._beat()
        except SQLAlchemyError as error:
            raise KilonovaError(f"the database {database} cannot be written: {_reason(error)}") from error
        self._thread = threading.Thread(target=self._run, name="kilonova-ledger", daemon=True)
        self._thread.start()

    async def open(self, row: Row) -> None:
        """Write the row of a call that begins; it is committed on return. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._queue.put(_Open(row, done, loop))
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await done
        except TimeoutError:
            raise _unavailable() from None

    def close(self, row: Row) -> None:
        """Write, soon, the row of a call that ended; in place of the one it began with, if there is one."""
        self._queue.put(_Close(row))

    def stop(self) -> None:
        """Write what waits and end the thread; blocks, and gives up `STOP_SECONDS` after the database began to fail."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        unwritten: list[Row] = []
        next_beat = time.monotonic() + HEARTBEAT_SECONDS
        retry_at = 0.0
        is_stopping = False
        while not is_stopping:
            wake_at = min(next_beat, retry_at) if unwritten else next_beat
            opens, closes, is_stopping = self._take(max(wake_at - time.monotonic(), 0.0))
            unwritten += closes
            if opens or (unwritten and time.monotonic() >= retry_at):
                unwritten = _without_old_refusals(self._write(opens, unwritten))
                retry_at = time.monotonic() + _PAUSES[min(self._failures, len(_PAUSES) - 1)] if unwritten else 0.0
            if time.monotonic() >= next_beat:
                self._try(self._beat, "the ledger cannot say that this server lives")
                next_beat = time.monotonic() + HEARTBEAT_SECONDS
        self._finish(unwritten)

    def _take(self, seconds: float) -> tuple[list[_Open], list[Row], bool]:
        """What waits, or comes within `seconds`; and whether the thread is to end."""
        opens: list[_Open] = []
        closes: list[Row] = []
        try:
            item = self._queue.get(timeout=seconds)
            while item is not None:
                if isinstance(item, _Open):
                    opens.append(item)
                else:
                    closes.append(item.row)
                item = self._queue.get_nowait()
            return opens, closes, True
        except Empty:
            return opens, closes, False

    def _write(self, opens: Sequence[_Open], closes: list[Row]) -> list[Row]:
        """Commit all of it, or what can be, and tell those that wait; the ends that are still to be written."""
        try:
            self._commit([each.row for each in opens], closes)
        except Exception as error:
            if not _is_fault_of_a_row(error):
                self._failures += 1
                logger.error("the ledger cannot be written, %d ends wait: %s", len(closes), _reason(error))
                _tell(opens, _unavailable())
                return closes
            if len(opens) + len(closes) > 1:
                kept = [row for each in opens for row in self._write([each], [])]
                return kept + [row for close in closes for row in self._write([], [close])]
            logger.error("a call cannot be written to the ledger", exc_info=error)
            _tell(opens, _unavailable())
            _log_lost(closes)
            return []
        self._failures = 0
        _tell(opens, None)
        return []

    def _commit(self, opened: list[Row], closed: list[Row]) -> None:
        with self._database.write() as connection:
            if opened:
                connection.execute(self._insert, opened)
            if closed:
                connection.execute(self._replace, closed)

    def _beat(self) -> None:
        """Say that this server lives, and end the calls of those that do not."""
        process = psutil.Process()
        mine = {
            "id": self.server_id,
            "host": _host(),
            "process_id": process.pid,
            "process_started": process.create_time(),
            "seen_at": _now(),
        }
        with self._database.write() as connection:
            connection.execute(self._register, mine)
            dead = [row.id for row in connection.execute(sa.select(servers)) if _is_dead(row, mine)]
            alive = sa.select(servers.c.id).where(servers.c.id.not_in(dead))
            is_lost = sa.and_(calls.c.status == "running", calls.c.server_id.not_in(alive))
            lost = connection.execute(calls.update().where(is_lost).values(status="lost")).rowcount
            connection.execute(servers.delete().where(servers.c.id.in_(dead)))
        if lost:
            logger.warning("%d calls were running on a server that is no more; the ledger has them as lost", lost)

    def _finish(self, unwritten: list[Row]) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while unwritten:
            unwritten = self._write([], unwritten)
            if time.monotonic() > deadline:
                break
            if unwritten:
                time.sleep(0.25)
        _log_lost(unwritten)

        def leave() -> None:
            with self._database.write() as connection:
                connection.execute(servers.delete().where(servers.c.id == self.server_id))

        self._try(leave, "the ledger cannot say that this server has stopped")

    def _try(self, work: Callable[[], None], failure: str) -> None:
        try:
            work()
        except Exception:
            logger.exception(failure)


def _is_fault_of_a_row(error: Exception) -> bool:
    """Whether a value was refused, and not the database is failing."""
    if isinstance(error, DataError | IntegrityError):
        return True
    return not isinstance(error, SQLAlchemyError) or type(error) is StatementError


def _reason(error: Exception) -> str:
    """What the database said, without the statement and the rows."""
    return str(getattr(error, "orig", error))


def _log_lost(rows: Sequence[Row]) -> None:
    for row in rows:
        logger.error("not in the ledger: %s", msgspec.json.encode(row).decode())


def _is_dead(server: Any, mine: Row) -> bool:
    if server.id == mine["id"]:
        return False
    if server.host == mine["host"]:
        try:
            # The start of a process is measured from that of the machine, whose clock may have been set since.
            return abs(psutil.Process(server.process_id).create_time() - server.process_started) > 2
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            pass
    return server.seen_at < mine["seen_at"] - LEASE_SECONDS * 1000


def _host() -> str:
    """The name of the machine and, on Linux, of what its process ids are valid in: containers have their own."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{platform.node()} {namespace}"[:200]


def _now() -> int:
    return time.time_ns() // 1_000_000


def _unavailable() -> Unavailable:
    return Unavailable("The request cannot be recorded now; try again later.")


def _without_old_refusals(rows: list[Row]) -> list[Row]:
    excess = sum(row["status"] == "refused" for row in rows) - MAX_UNWRITTEN_REFUSALS
    if excess <= 0:
        return rows
    kept = []
    for row in rows:
        if excess > 0 and row["status"] == "refused":
            excess -= 1
        else:
            kept.append(row)
    return kept


def _tell(opens: Sequence[_Open], error: Exception | None) -> None:
    """End the waiting of calls, on their event loops."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for each in opens:
        by_loop.setdefault(each.loop, []).append(each.done)
    for loop, futures in by_loop.items():
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(_resolve, futures, error)


def _resolve(futures: Sequence[asyncio.Future[None]], error: Exception | None) -> None:
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
