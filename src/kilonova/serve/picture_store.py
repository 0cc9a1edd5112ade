"""Pictures that clients fetch by address, kept in memory for a while."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

# As long as the API promises.
KEEP_SECONDS = 3600.0
MAX_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A file and its media type."""

    data: bytes
    media_type: str
    until: float


class PictureStore:
    """Files under names that cannot be guessed; the oldest go first where they are too many. For one event loop."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._pictures: OrderedDict[str, StoredPicture] = OrderedDict()
        self._bytes = 0

    def add(self, data: bytes, format: str) -> str:
        """The name of a file of a format, such as `png`."""
        name = f"{secrets.token_urlsafe(24)}.{format}"
        self._pictures[name] = StoredPicture(data, f"image/{format}", self._clock() + KEEP_SECONDS)
        self._bytes += len(data)
        self._forget()
        return name

    def get(self, name: str) -> StoredPicture | None:
        """The file of a name, None if there is none any more."""
        self._forget()
        return self._pictures.get(name)

    def _forget(self) -> None:
        now = self._clock()
        while self._pictures:
            oldest = next(iter(self._pictures.values()))
            # The newest stays: somebody is about to ask for it.
            if oldest.until > now and (self._bytes <= self._max_bytes or len(self._pictures) == 1):
                return
            self._pictures.popitem(last=False)
            self._bytes -= len(oldest.data)
