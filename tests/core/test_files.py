from pathlib import Path

import pytest

from kilonova.core.files import atomic_directory, write_atomic


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_write_atomic_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_atomic_directory_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with atomic_directory(path) as temporary:
        (temporary / "a").write_text("1")
        assert not path.exists()
    with atomic_directory(path) as temporary:
        (temporary / "b").write_text("2")
    assert [file.name for file in path.iterdir()] == ["b"]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_atomic_directory_makes_its_files_readable_as_usual(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with atomic_directory(tmp_path / "model") as temporary:
        (temporary / "private").touch(mode=0o600)
    assert (tmp_path / "model" / "private").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_atomic_directory_vanishes_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with atomic_directory(path) as temporary:
        (temporary / "a").write_text("1")

    def write_part() -> None:
        with atomic_directory(path) as temporary:
            (temporary / "b").write_text("2")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_part()
    assert [file.name for file in path.iterdir()] == ["a"]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
