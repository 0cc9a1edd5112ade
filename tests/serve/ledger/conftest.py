from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kilonova.serve.database import Database, default_url


def make_row(identifier: str, **values: Any) -> dict[str, Any]:
    """A row of `calls`: a running one, but for `values`."""
    return {
        "id": identifier,
        "server_id": "test",
        "started_at": int(time.time() * 1000),
        "key_id": "",
        "key_name": "",
        "protocol": "bedrock",
        "operation": "Converse",
        "model": "micro",
        "service_tier": "default",
        "status": "running",
        "http_status": None,
        "error": "",
        "input_tokens": 0,
        "output_tokens": 0,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "images": 0,
        "video_seconds": 0,
        "time_to_first_token": None,
        "latency": None,
        "stop_reason": "",
        "price": 0,
        "price_entry": "",
        "request_metadata": {},
        **values,
    }


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[Database]:
    """A new SQLite database with all tables."""
    database = Database(default_url(tmp_path))
    database.migrate()
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A new database of each kind with all tables."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_database")
        return
    database = Database(request.getfixturevalue("new_postgres_database")())
    database.migrate()
    yield database
    database.close()
