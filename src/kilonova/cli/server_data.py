"""What commands beside a server share with it: its data directory, and the database it keeps there or elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kilonova.core.errors import ConfigError

if TYPE_CHECKING:
    from kilonova.serve.database import Database


def default_data() -> Path:
    """The data directory where none is named."""
    from kilonova.models.registry import models_home

    return Path(os.environ.get("KILONOVA_SERVER_DATA") or models_home().parent)


@contextmanager
def open_database(data: Path, url: str | None, *, must_exist: bool = False) -> Iterator[Database]:
    """The database, up to date, of the server with this data directory, or the one at `url`; closed afterwards.

    Where there is none, one is made, or with `must_exist` ConfigError raised.
    """
    from kilonova.serve.database import Database, default_url
    from kilonova.serve.settings import FILE_NAME, load_settings

    file = data / FILE_NAME
    settings = load_settings(file if file.exists() else None, {"server": {"database": url}})
    database = Database(settings.server.database or default_url(data))
    file = Path(database.url.database or "")
    if must_exist and database.url.get_backend_name() == "sqlite" and not file.exists():
        raise ConfigError(f"there is no database {file}: no server has run there; see --data and --database")
    try:
        database.migrate()
        yield database
    finally:
        database.close()
