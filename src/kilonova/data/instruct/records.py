"""Reads the rows of a data pack, training files only."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from kilonova.core.errors import DataError

TRAINING_FOLDERS = ("sft", "text")


class TrainingRecords:
    """The training files of the data pack under `root`; reserved files (`eval/`, `*_val*`, `*_test*`) are refused."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"data root {self.root} is not a directory")

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Yields the JSON objects of `name` (such as `sft/trec_train`), in file order.

        Raises DataError for a reserved name, a missing file or a line that is not a JSON object.
        """
        folder, _, stem = name.partition("/")
        if (
            folder not in TRAINING_FOLDERS
            or not stem
            or "/" in stem
            or any(part in {"val", "test", "dev", "eval"} for part in stem.split("_"))
        ):
            raise DataError(f"{name!r} is not a training file; allowed folders: {', '.join(TRAINING_FOLDERS)}")
        path = self.root / f"{name}.jsonl.zst"
        if not path.is_file():
            raise DataError(f"{path} is missing")
        decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
        with path.open("rb") as file, decompressor.stream_reader(file) as stream:
            for number, line in enumerate(io.TextIOWrapper(stream, encoding="utf-8", newline="\n"), start=1):
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise DataError(f"{path}, line {number}: {error}") from error
                if not isinstance(row, dict):
                    raise DataError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}")
                yield row
