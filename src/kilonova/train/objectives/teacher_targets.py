"""A teacher's likeliest tokens at the positions of training rows, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from kilonova.core.errors import DataError
from kilonova.core.files import write_atomic
from kilonova.core.progress import ProgressReporter
from kilonova.core.types import IGNORE_INDEX
from kilonova.data.packing import Batch
from kilonova.models.checkpoint import load_config, load_decoder
from kilonova.nn.distillation import top_k_log_probs
from kilonova.train.language_context import LanguageContext
from kilonova.train.placed import PlacedDecoder

_ROWS_PER_FILE = 64

# Input ids, labels and document ids, each `[T]`.
_Row = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class _Place:
    """Where a row's targets are: positions `start` to `end` of the arrays in `file`."""

    file: Path
    start: int
    end: int


class TeacherTargets:
    """The `top_k` likeliest tokens of a teacher, as `top_k_log_probs` gives them at `temperature`.

    They are found by what a row holds, in a folder below `cache` that is named by a digest of the teacher's files, k
    and temperature: whichever run reads the same row finds them again. Only positions with a label are kept, with
    log-probabilities in float16 (relative error of a probability p: at most |log p| / 2048).
    """

    def __init__(self, context: LanguageContext, teacher: Path, top_k: int, temperature: float) -> None:
        identity = json.dumps([checkpoint_digest(teacher), top_k, temperature, str(context.dtype)])
        name = f"teacher-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        self.directory = Path(context.recipe.data.cache) / name
        self._context, self._teacher, self._top_k, self._temperature = context, teacher, top_k, temperature
        vocab_size = load_config(teacher).vocab_size
        self._index_dtype = np.uint16 if vocab_size <= 2**16 else np.uint32
        self._outcomes = top_k + (top_k < vocab_size)
        self._places: dict[bytes, _Place] = {}
        for file in sorted(self.directory.glob("*.safetensors")):
            self._read_places(file)

    def prepare(self, micro_batches: Callable[[int], Sequence[Batch]], steps: int) -> None:
        """Compute what is missing for a run's steps, file by file, so that one that is stopped goes on where it was."""
        teacher: PlacedDecoder | None = None
        waiting: dict[bytes, _Row] = {}
        with ProgressReporter("teacher's targets: steps", steps) as progress:
            for step in range(steps):
                for batch in micro_batches(step):
                    rows = zip(batch.input_ids, batch.labels, batch.document_ids, strict=True)
                    waiting |= {k: row for k, row in zip(_keys(batch), rows, strict=True) if k not in self._places}
                if waiting and (len(waiting) >= _ROWS_PER_FILE or step == steps - 1):
                    teacher = teacher or self._load_teacher()
                    self._compute(waiting, teacher)
                    waiting.clear()
                progress.update(step + 1)

    def of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Tokens, int32 `[B * T, k]`, and log-probabilities, float16 `[B * T, k or k + 1]`, zeros without a label.

        The batch is on the CPU.
        """
        kept = (batch.labels.flatten() != IGNORE_INDEX).numpy()
        indices = np.zeros((len(kept), self._top_k), np.int32)
        log_probs = np.zeros((len(kept), self._outcomes), np.float16)
        parts = [self._read(self._places[key]) for key in _keys(batch)]
        indices[kept] = np.concatenate([part for part, _ in parts])
        log_probs[kept] = np.concatenate([part for _, part in parts])
        return torch.from_numpy(indices), torch.from_numpy(log_probs)

    def _load_teacher(self) -> PlacedDecoder:
        decoder = load_decoder(self._teacher, dtype=self._context.dtype).requires_grad_(False)
        return PlacedDecoder(decoder, self._context.device, self._context.dtype)

    @torch.no_grad()
    def _compute(self, waiting: dict[bytes, _Row], teacher: PlacedDecoder) -> None:
        rows, size = list(waiting.values()), self._context.recipe.micro_batch_size
        indices, log_probs = [], []
        for start in range(0, len(rows), size):
            batch = Batch(*map(torch.stack, zip(*rows[start : start + size], strict=True))).to(teacher.device)
            hidden = teacher.hidden_states(batch)[batch.labels != IGNORE_INDEX]
            with teacher.autocast():
                found = top_k_log_probs(hidden, teacher.output_weight, self._top_k, self._temperature)
            indices.append(found[0].cpu().numpy().astype(self._index_dtype))
            log_probs.append(found[1].cpu().numpy().astype(np.float16))
        counts = [int((labels != IGNORE_INDEX).sum()) for _, labels, _ in rows]
        arrays = {
            "keys": np.frombuffer(b"".join(waiting), np.uint8).reshape(len(rows), -1),
            "offsets": np.cumsum([0, *counts]),
            "indices": np.concatenate(indices),
            "log_probs": np.concatenate(log_probs),
        }
        file = self.directory / f"{next(iter(waiting)).hex()}.safetensors"
        write_atomic(file, save(arrays))
        self._read_places(file)

    def _read_places(self, file: Path) -> None:
        try:
            with safe_open(file, framework="numpy") as stored:
                keys, offsets = stored.get_tensor("keys"), stored.get_tensor("offsets")
        except SafetensorError as error:
            raise DataError(f"{file} cannot be read ({error}); remove it, and it is made again") from error
        for number, key in enumerate(keys):
            self._places[key.tobytes()] = _Place(file, int(offsets[number]), int(offsets[number + 1]))

    def _read(self, place: _Place) -> tuple[np.ndarray, np.ndarray]:
        span = slice(place.start, place.end)
        with safe_open(place.file, framework="numpy") as stored:
            return stored.get_slice("indices")[span], stored.get_slice("log_probs")[span]


def checkpoint_digest(directory: Path) -> str:
    """A digest of the files that decide what a checkpoint computes."""
    digest = hashlib.sha256()
    for path in (directory / "config.json", *sorted(directory.glob("*.safetensors"))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _keys(batch: Batch) -> list[bytes]:
    """A digest of each row: its tokens, labels and bounds of documents."""
    starts = batch.document_ids.diff(dim=1)
    rows = zip(batch.input_ids, batch.labels, starts, strict=True)
    return [hashlib.blake2b(b"".join(part.numpy().tobytes() for part in row), digest_size=16).digest() for row in rows]
