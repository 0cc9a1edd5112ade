"""Pictures for tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.pictures.discs import write_discs


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """A Parquet file of six discs."""
    return write_discs(tmp_path / "discs.parquet")
