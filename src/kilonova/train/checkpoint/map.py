"""The observer's map: which file of the newest checkpoint which rank needs, each one verified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from kilonova.core.files import write_atomic
from kilonova.train.checkpoint.folder import CheckpointFolder, rank_of

_NAME = "map.json"


@dataclass(frozen=True)
class SeenFile:
    """A file as it was when its checksum was found right; `rank` None is read by all."""

    path: str
    rank: int | None
    bytes: int
    modified_ns: int


@dataclass(frozen=True)
class ObservedMap:
    """The newest intact checkpoint: `files` by name."""

    step: int
    world_size: int
    files: dict[str, SeenFile]

    @classmethod
    def observe(cls, folder: CheckpointFolder, step: int) -> ObservedMap | None:
        """Read a whole checkpoint and map it, or None when it is corrupt."""
        manifest = folder.manifest(step)
        files = {}
        for name in manifest.files:
            path = folder.checkpoint(step) / name
            stat = path.stat()
            files[name] = SeenFile(str(path.absolute()), rank_of(name), stat.st_size, stat.st_mtime_ns)
        if folder.damaged(step, manifest.files):
            return None
        return cls(step, manifest.world_size, files)

    @classmethod
    def read(cls, directory: Path) -> ObservedMap | None:
        """The map in a folder of checkpoints; None when there is none that can be read."""
        try:
            return msgspec.json.decode((directory / _NAME).read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError):
            return None

    def write(self, directory: Path) -> None:
        write_atomic(directory / _NAME, msgspec.json.encode(self))

    def unchanged(self, name: str) -> bool:
        """Whether a file is untouched since it was verified."""
        seen = self.files.get(name)
        if seen is None:
            return False
        try:
            stat = Path(seen.path).stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (seen.bytes, seen.modified_ns)
