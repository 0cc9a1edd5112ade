"""Language identification with py3langid (BSD licence, its model inside the package)."""

from __future__ import annotations

import py3langid

# More text does not change the answer and costs time.
_CHARACTERS = 4000


def identify_language(text: str) -> str:
    """The language of the beginning of `text` as an ISO 639 code, such as `en`; `und` where there are no letters."""
    start = text[:_CHARACTERS].encode(errors="ignore").decode()
    if not any(character.isalpha() for character in start):
        return "und"
    return str(py3langid.classify(start)[0])
