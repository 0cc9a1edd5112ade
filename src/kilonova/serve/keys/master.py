"""The master key, of which the secrets of signatures are derived, so that no database needs to hold them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from pathlib import Path

from kilonova.core.errors import ConfigError

FILE_NAME = "master.key"

_KEY_BYTES = 32
# 30 bytes are the 40 characters of an AWS secret access key.
_SECRET_BYTES = 30


class MasterKey:
    """256 random bits; whoever reads them can sign as every key, and without them nobody can as any."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def open(cls, path: Path) -> MasterKey:
        """The key in a file, which is made, readable by its owner alone, where there is none.

        Raises ConfigError for a file that others can read, or that holds something else.
        """
        if not path.exists():
            _create(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise ConfigError(
                f"{path}: others than its owner may read it (mode {mode:04o}); if nobody has, `chmod 600 {path}`; if "
                "somebody may have, delete it and create new keys"
            )
        try:
            key = bytes.fromhex(path.read_text("ascii"))
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise ConfigError(f"{path}: a master key of {2 * _KEY_BYTES} hexadecimal digits is expected")
        return cls(key)

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits that tell master keys apart and give nothing away."""
        return self._derive("id", "").hex()[:16]

    def secret_access_key(self, access_key_id: str) -> str:
        """The secret that belongs to any access key id, whether or not there is such a key."""
        return base64.b64encode(self._derive("secret access key", access_key_id)[:_SECRET_BYTES]).decode()

    def _derive(self, purpose: str, subject: str) -> bytes:
        return hmac.digest(self._key, f"kilonova {purpose}\0{subject}".encode(), hashlib.sha256)


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename this never replaces the key that another process has just made.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
