"""Checkpoints beside the training: staged in a moment, written by a thread, complete on all ranks or not at all.

A thread, not a process: on a CPU both block the step for the copy alone and slow the step beside them alike, and a
process costs another import of PyTorch (`benchmarks/checkpoint.py`).
"""

from __future__ import annotations

import shutil
import sys
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import CheckpointException, FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import AsyncSaveResponse
from torch.optim import Optimizer

from kilonova.core.errors import CheckpointError
from kilonova.train.checkpoint.folder import CheckpointFolder, FileRecord, Manifest, file_record, rank_of
from kilonova.train.checkpoint.map import ObservedMap
from kilonova.train.checkpoint.state import from_bytes, load_sharded_state, own_key, sharded_state, to_bytes

# One process alone is meant.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


@dataclass(frozen=True)
class SaveResult:
    """How a save ended, `seconds` after it began; `error` None means that the checkpoint is complete."""

    step: int
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Restored:
    """What a checkpoint holds besides tensors: the run's record, and this rank's own state.

    A checkpoint of fewer ranks holds none of this rank; `own` is then rank 0's and `same_rank` False.
    """

    step: int
    run: dict[str, Any]
    own: Any
    same_rank: bool


class Checkpointer:
    """Saves and loads the state of a model and its optimisers in `path`, with one process or all of a process group.

    At most one save is in flight: another one waits for it. `keep` newest checkpoints stay, and those whose step is a
    multiple of `keep_every`. Load only what you trust: the files are pickles.
    """

    def __init__(
        self, path: Path, model: nn.Module, optimizers: list[Optimizer], keep: int, keep_every: int | None = None
    ) -> None:
        self.folder = CheckpointFolder(path)
        self._model, self._optimizers = model, optimizers
        self._keep, self._keep_every = keep, keep_every
        # Its own group: these collectives run beside those of the training step.
        self._group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self._rank = dist.get_rank() if self._group else 0
        self._world_size = dist.get_world_size() if self._group else 1
        cuda = any(parameter.device.type == "cuda" for parameter in model.parameters())
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=cuda, use_shared_memory=False, use_async_staging=cuda, use_non_blocking_copy=cuda
            )
        )
        self.writer: type[FileSystemWriter] = FileSystemWriter
        """What writes the next save; a rehearsal of faults puts another one in."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._staging: Future[None] | None = None
        self._saving: Future[SaveResult] | None = None

    def save(self, step: int, run: dict[str, Any], own: Any) -> SaveResult | None:
        """Begin to save; returns how the save before it ended when that had to be waited for.

        `run` is the same on all ranks and made of JSON values, `own` this rank's (what `torch.load` reads with
        `weights_only`). Call `wait_until_staged` before the next change to a weight.
        """
        earlier = self.wait()
        started = time.monotonic()
        state = {**sharded_state(self._model, self._optimizers), own_key(self._rank): to_bytes(own)}
        target = self.folder.incomplete(step)
        if self._rank == 0:
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
        response = dcp.async_save(
            state,
            storage_writer=self.writer(target),
            process_group=self._group,
            async_stager=self._stager,
            no_dist=self._group is None,
        )
        self.writer = FileSystemWriter
        if isinstance(response, AsyncSaveResponse):
            self._staging, upload = response.staging_completion, response.upload_completion
        else:
            upload = response
        self._saving = self._thread.submit(self._finish, step, run, upload, started)
        return earlier

    def wait_until_staged(self) -> None:
        """Return once the weights may change again."""
        if self._staging is not None:
            self._staging.result()
            self._staging = None

    def finished(self) -> SaveResult | None:
        """How the save in flight ended, once; None while there is none or it goes on."""
        if self._saving is None or not self._saving.done():
            return None
        return self.wait()

    def wait(self) -> SaveResult | None:
        """Wait for the save in flight, if there is one."""
        if self._saving is None:
            return None
        self.wait_until_staged()
        result, self._saving = self._saving.result(), None
        return result

    def load_newest(self) -> Restored | None:
        """Load the newest intact checkpoint into model and optimisers; None when there is none at all.

        A corrupt one is set aside, saying so on standard error, and the one before is taken. Raises `CheckpointError`
        when all are corrupt.
        """
        self.wait()
        step = self._agree(lambda: self.folder.newest())
        while step is not None:
            damaged = self._damaged(step)
            if not damaged:
                break
            if self._rank == 0:
                aside = self.folder.set_aside(step)
                print(
                    f"checkpoint of step {step} is corrupt ({', '.join(damaged)}); moved to {aside}",
                    file=sys.stderr,
                    flush=True,
                )
            step = self._agree(lambda: max(self.folder.steps(), default=None))
            if step is None:
                raise CheckpointError(f"{self.folder.path}: all checkpoints are corrupt; remove it to start anew")
        if step is None:
            return None
        return self.load(step)

    def load(self, step: int) -> Restored:
        """Load one complete checkpoint, as it is."""
        manifest = self.folder.manifest(step)
        rank = self._rank if self._rank < manifest.world_size else 0
        own = load_sharded_state(self.folder.checkpoint(step), self._model, self._optimizers, rank, self._group)
        return Restored(step, manifest.run, from_bytes(own), rank == self._rank)

    def close(self) -> SaveResult | None:
        """Wait for the save in flight and free the staging memory."""
        result = self.wait()
        self._thread.shutdown()
        self._stager.close()
        return result

    def _finish(self, step: int, run: dict[str, Any], upload: Future[Any], started: float) -> SaveResult:
        """On the thread: once all ranks have written, check what lies on the disk and make it a checkpoint."""
        try:
            upload.result()
            self._commit(step, run)
            error = None
        except (Exception, CheckpointException) as failure:
            error = str(failure).strip().splitlines()[-1]
            if self._rank == 0:
                shutil.rmtree(self.folder.incomplete(step), ignore_errors=True)
        return SaveResult(step, time.monotonic() - started, error)

    def _commit(self, step: int, run: dict[str, Any]) -> None:
        directory = self.folder.incomplete(step)
        own = [path for path in directory.iterdir() if rank_of(path.name) == self._rank]
        if self._rank == 0:
            own += [path for path in directory.iterdir() if rank_of(path.name) is None]
        records = {path.name: file_record(path) for path in sorted(own)}
        every: list[dict[str, FileRecord]] = [records] * self._world_size
        if self._group is not None:
            dist.all_gather_object(every, records, group=self._group)
        failure = None
        if self._rank == 0:
            files = {name: record for part in every for name, record in part.items()}
            try:
                self.folder.commit(Manifest(step=step, world_size=self._world_size, files=files, run=run))
                self.folder.prune(self._keep, self._keep_every)
            except OSError as error:
                failure = str(error)
        failure = self._agree(lambda: failure)
        if failure is not None:
            raise CheckpointError(failure)

    def _damaged(self, step: int) -> list[str]:
        """The files of a checkpoint that cannot be trusted, the same on every rank, each read by a rank that needs it.

        What the observer has verified and nobody has touched since is trusted without reading it.
        """
        try:
            manifest = self.folder.manifest(step)
        except CheckpointError:
            return [str(self.folder.checkpoint(step))]
        names = manifest.files_of(self._rank, self._world_size)
        if self._world_size != manifest.world_size:
            names = names[self._rank :: self._world_size]
        trusted = ObservedMap.read(self.folder.path)
        names = [name for name in names if not (trusted and trusted.step == step and trusted.unchanged(name))]
        damaged = self.folder.damaged(step, names)
        if self._group is not None:
            parts: list[list[str]] = [[] for _ in range(self._world_size)]
            dist.all_gather_object(parts, damaged, group=self._group)
            damaged = sorted({name for part in parts for name in part})
        return damaged

    def _agree(self, value: Any) -> Any:
        """Rank 0's value on every rank."""
        if self._group is None:
            return value()
        values = [value() if self._rank == 0 else None]
        dist.broadcast_object_list(values, src=0, group=self._group)
        return values[0]
