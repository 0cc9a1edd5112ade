"""The keys a running server knows: what the database holds, at most a second old."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from kilonova.core.errors import Unavailable
from kilonova.serve.keys.store import Key, KeyStore

logger = logging.getLogger(__name__)

# How long a new key may stay unknown, and a revoked one go on working.
MAX_AGE_SECONDS = 1.0
# How long what was known last holds while the database cannot be reached.
MAX_STALE_SECONDS = 60.0
# How exactly the time of a key's last use is kept.
LAST_USED_INTERVAL = timedelta(minutes=1)


class Keys:
    """Every key by its id and by the digests of its bearer keys."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.by_id = {key.id: key for key in keys}
        self.by_digest = {
            digest: key for key in self.by_id.values() for digest in (key.bedrock_key_hash, key.openai_key_hash)
        }


class KeyRing:
    """Holds every key of the store, and looks once a second, when there are requests, whether they have changed.

    All of them rather than those in use, so that looking for a key takes the same time whether or not there is one, and
    nobody can make the server ask its database more often.
    """

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._keys = Keys(())
        self._version: tuple | None = None
        self._read_at = -float("inf")
        self._tried_at = -float("inf")
        self._lock = asyncio.Lock()
        self._used: dict[str, datetime] = {}
        self._noted: dict[str, datetime] = {}

    async def keys(self) -> Keys:
        """The keys as they are now. Raises Unavailable when the database has not been reached for a while."""
        if time.monotonic() - self._tried_at > MAX_AGE_SECONDS:
            async with self._lock:
                if time.monotonic() - self._tried_at > MAX_AGE_SECONDS:
                    await asyncio.to_thread(self.refresh)
        if time.monotonic() - self._read_at > MAX_STALE_SECONDS:
            raise Unavailable("The database of keys cannot be reached; try again.", retry_after=5.0)
        return self._keys

    def used(self, key: Key) -> None:
        """Remember that a key was used; it is written down now and then."""
        self._used[key.id] = datetime.now(UTC)

    def refresh(self) -> None:
        """Read what has changed, and write down what was used. Blocks."""
        started = time.monotonic()
        try:
            version = self._store.version()
            if version != self._version:
                self._keys, self._version = Keys(self._store.list()), version
            self._read_at = started
            self._note_use(LAST_USED_INTERVAL)
        except SQLAlchemyError:
            logger.warning("the keys cannot be read; those known last hold for a minute", exc_info=True)
        self._tried_at = time.monotonic()

    def close(self) -> None:
        """Write down the last uses."""
        try:
            self._note_use(timedelta())
        except SQLAlchemyError:
            logger.warning("the last uses of keys could not be written", exc_info=True)

    def _note_use(self, interval: timedelta) -> None:
        due = {
            key: used
            for key, used in self._used.copy().items()
            if key not in self._noted or used - self._noted[key] > interval
        }
        if due:
            self._store.note_use(due)
            self._noted.update(due)
