"""Stop sequences, matched on the text whatever tokens it is made of."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class StopMatcher:
    """Passes text on until a stop sequence is complete.

    The match that ends first wins, and among those the longest. Text is held back only while it could still be the
    beginning of a stop sequence, so the outcome does not depend on how the text is cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = sorted(set(stops))
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """Text that is safe to emit, and the stop sequence that matched, if any; nothing may be pushed after one."""
        if not self._stops:
            return text, None
        text = self._held + text
        matches = [(found + len(stop), found, stop) for stop in self._stops if (found := text.find(stop)) >= 0]
        if matches:
            _, start, stop = min(matches)
            self._held = ""
            return text[:start], stop
        held = self._length_of_beginning(text)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], None

    def flush(self) -> str:
        """The text held back, when the generation ends without a match."""
        held, self._held = self._held, ""
        return held

    def _length_of_beginning(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop sequence."""
        for length in range(min(len(text), self._longest - 1), 0, -1):
            end = text[len(text) - length :]
            index = bisect_left(self._stops, end)
            if index < len(self._stops) and self._stops[index].startswith(end):
                return length
        return 0
