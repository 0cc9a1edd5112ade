"""The folder of a run's checkpoints: which are complete, which is newest, which go.

Nothing here needs PyTorch, so that the observer process starts in a moment.
"""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from kilonova.core.errors import CheckpointError
from kilonova.core.files import write_atomic

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d+)")
_CORRUPT = re.compile(r"corrupt-step-(\d+)")
_CHUNK = 1 << 24


@dataclass(frozen=True)
class FileRecord:
    """Size and CRC-32 of a file when it was written."""

    bytes: int
    crc32: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a complete checkpoint holds: its files by name, which rank wrote which, and the run's own record."""

    step: int
    world_size: int
    files: dict[str, FileRecord]
    run: dict[str, Any] = field(default_factory=dict)

    def files_of(self, rank: int, world_size: int) -> list[str]:
        """The files that `rank` of `world_size` reads; all of them when the sharding is another one."""
        if world_size != self.world_size:
            return list(self.files)
        return [name for name in self.files if rank_of(name) in (rank, None)]


def rank_of(name: str) -> int | None:
    """The rank that wrote a file of distributed checkpoint, None for what all ranks read."""
    match = re.match(r"__(\d+)_", name)
    return int(match[1]) if match else None


def file_record(path: Path) -> FileRecord:
    """Read a file once for its size and checksum."""
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    return FileRecord(size, checksum)


class CheckpointFolder:
    """Complete checkpoints are folders `step-N` with a manifest; `latest` names the newest and is written last."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def checkpoint(self, step: int) -> Path:
        return self.path / f"step-{step:08d}"

    def incomplete(self, step: int) -> Path:
        """Where a checkpoint is written before it is complete."""
        return self.path / f".step-{step:08d}.incomplete"

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        if not self.path.is_dir():
            return []
        found = sorted(int(match[1]) for name in os.listdir(self.path) if (match := _NAME.fullmatch(name)))
        complete = [step for step in found if (self.checkpoint(step) / MANIFEST).exists()]
        if found and not complete:
            raise CheckpointError(
                f"{self.path} holds step-* folders, none with a {MANIFEST}; they are from another version or were "
                "damaged: move them away to start anew"
            )
        return complete

    def newest(self) -> int | None:
        """The step of the newest complete checkpoint: one read when `latest` is there, else a scan."""
        try:
            match = _NAME.fullmatch((self.path / "latest").read_text(encoding="utf-8").strip())
        except OSError:
            match = None
        if match and (self.path / match[0] / MANIFEST).exists():
            return int(match[1])
        return max(self.steps(), default=None)

    def manifest(self, step: int) -> Manifest:
        path = self.checkpoint(step) / MANIFEST
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError) as error:
            raise CheckpointError(f"{path} cannot be read ({error})") from error

    def commit(self, manifest: Manifest) -> None:
        """Make what lies in `incomplete(step)` a complete checkpoint, durably, and point `latest` at it."""
        temporary, final = self.incomplete(manifest.step), self.checkpoint(manifest.step)
        write_atomic(temporary / MANIFEST, msgspec.json.encode(manifest))
        if final.exists():
            self._remove(final)
        os.replace(temporary, final)
        _sync_directory(self.path)
        write_atomic(self.path / "latest", final.name + "\n")

    def damaged(self, step: int, names: Iterable[str]) -> list[str]:
        """Those of the named files that are missing or not what the manifest recorded."""
        directory, files = self.checkpoint(step), self.manifest(step).files
        return [name for name in names if not _intact(directory / name, files[name])]

    def set_aside(self, step: int) -> Path:
        """Rename a corrupt checkpoint so that it is never read again, and return where it is."""
        aside = self.path / f"corrupt-step-{step:08d}"
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(self.checkpoint(step), aside)
        return aside

    def prune(self, keep: int, keep_every: int | None) -> None:
        """Remove all but the `keep` newest and those whose step is a multiple of `keep_every`."""
        steps = self.steps()
        for step in steps[:-keep]:
            if not (keep_every and step % keep_every == 0):
                self._remove(self.checkpoint(step))
        for name in os.listdir(self.path):
            match = _CORRUPT.fullmatch(name)
            if match and int(match[1]) < max(steps):
                shutil.rmtree(self.path / name)

    def clean(self) -> None:
        """Remove what a run that was killed while it saved or pruned has left: only one run writes here."""
        for path in self.path.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _remove(self, path: Path) -> None:
        # Renamed first, so that a kill in between does not leave a half-empty folder under a checkpoint's name.
        gone = path.with_name(f".{path.name}.removed")
        os.replace(path, gone)
        shutil.rmtree(gone)


def _intact(path: Path, record: FileRecord) -> bool:
    try:
        return path.stat().st_size == record.bytes and file_record(path) == record
    except OSError:
        return False


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
