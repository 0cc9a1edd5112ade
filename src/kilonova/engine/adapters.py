"""Adapters an engine knows by name, of which it holds the weights of some."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kilonova.core.errors import ConfigError, EngineError, InvalidRequest, KilonovaError, ModelNotFound, nearest
from kilonova.engine.low_rank import AdapterWeights
from kilonova.models.adapter import AdapterTensors, read_adapter

if TYPE_CHECKING:
    from kilonova.engine.request import Request
    from kilonova.engine.runner import ModelRunner

logger = logging.getLogger(__name__)

_MERGE = "`kilonova models merge` makes a model of both"


@dataclass(eq=False, slots=True)
class Adapter:
    """A PEFT directory under a name; `weights` are there while it is loaded.

    `holders` are requests that run with it or stand in the scheduler's queue. `version` tells apart those that had the
    same name one after another.
    """

    name: str
    directory: Path
    version: int
    weights: AdapterWeights | None = None
    is_loading: bool = False
    holders: set[Request] = field(default_factory=set)


class AdapterUse(NamedTuple):
    """Whether an adapter's weights are loaded, and how many requests use it and wait for it."""

    loaded: bool
    running: int
    waiting: int


class AdapterPool:
    """Gives requests their adapters: at most `max_loras` are loaded, each when it is first asked for.

    Where there is no room, the least recently used one that no request holds is dropped; where all are held, requests
    wait in the order in which they came. They are read, for `runner`, on a thread of the pool's own, so that running
    requests go on. `admit` takes a request whose adapter is loaded, `fail` one whose adapter cannot be; both are called
    under `lock`, which guards all that is here and may be held by the caller.
    """

    def __init__(
        self,
        runner: ModelRunner,
        admit: Callable[[Request], None],
        fail: Callable[[Request, EngineError], None],
        lock: threading.Condition,
        max_loras: int,
        max_lora_rank: int,
    ) -> None:
        self.waiting: list[Request] = []
        self._runner = runner
        self._admit, self._fail = admit, fail
        self._lock = lock
        self._max_loras, self._max_lora_rank = max_loras, max_lora_rank
        self._known: dict[str, Adapter] = {}
        # Loaded and loading ones, the least recently used first.
        self._places: dict[Adapter, None] = {}
        self._num_added = 0
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kilonova-adapters")

    def add(self, name: str, directory: Path) -> None:
        """Know the PEFT `directory` as `name`.

        Raises CheckpointError for one that is damaged or does not fit the model, ConfigError for a name that is known
        already and for an adapter that can be merged but not served: of too high a rank, or with DoRA.
        """
        self._read(directory)
        with self._lock:
            if name in self._known:
                raise ConfigError(f"the engine has an adapter {name!r} already; remove it first")
            self._num_added += 1
            self._known[name] = Adapter(name, directory, self._num_added)

    def remove(self, name: str) -> None:
        """Forget an adapter. Raises ModelNotFound, and InvalidRequest while requests use it."""
        with self._lock:
            adapter = self.get(name)
            users = len(adapter.holders) + sum(request.adapter is adapter for request in self.waiting)
            if users:
                raise InvalidRequest(f"adapter {name!r} is in use by {users} requests", field="adapter")
            del self._known[name]
            if not adapter.is_loading:
                self._drop(adapter)
                self._serve_waiting()

    def get(self, name: str) -> Adapter:
        """The adapter of that name. Raises ModelNotFound."""
        with self._lock:
            if name not in self._known:
                hint = nearest(name, self._known) if self._known else "the engine has none"
                raise ModelNotFound(f"no adapter {name!r}: {hint}")
            return self._known[name]

    def use(self) -> dict[str, AdapterUse]:
        """How the known adapters are used."""
        with self._lock:
            asked = [request.adapter for request in self.waiting]
            return {
                name: AdapterUse(adapter.weights is not None, len(adapter.holders), asked.count(adapter))
                for name, adapter in self._known.items()
            }

    def submit(self, request: Request) -> None:
        """Admit a request when its adapter is loaded and all before it have had their turn.

        Raises ModelNotFound where the adapter was removed in the meantime.
        """
        with self._lock:
            if request.adapter is not None and self.get(request.adapter.name) is not request.adapter:
                raise ModelNotFound(f"adapter {request.adapter.name!r} is another one now; ask again")
            self.waiting.append(request)
            self._serve_waiting()

    def release(self, request: Request) -> bool:
        """Note that a request is over; whether it had been admitted."""
        with self._lock:
            adapter = request.adapter
            if adapter is None:
                return True
            was_admitted = request in adapter.holders
            adapter.holders.discard(request)
            if request in self.waiting:
                self.waiting.remove(request)
            self._serve_waiting()
            return was_admitted

    def close(self) -> None:
        """Load nothing more."""
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _read(self, directory: Path) -> AdapterTensors:
        tensors = read_adapter(directory, self._runner.adaptable_shapes)
        if tensors.config.kind == "dora":
            raise ConfigError(f"{directory}: DoRA is not served beside its base; {_MERGE}")
        if tensors.config.rank > self._max_lora_rank:
            raise ConfigError(
                f"{directory}: rank {tensors.config.rank} is above max_lora_rank, {self._max_lora_rank}; raise it, or "
                f"{_MERGE}"
            )
        return tensors

    def _serve_waiting(self) -> None:
        waiting, self.waiting = self.waiting, []
        for position, request in enumerate(waiting):
            adapter = request.adapter
            assert adapter is not None
            if adapter.weights is not None:
                self._places[adapter] = self._places.pop(adapter)
                adapter.holders.add(request)
                self._admit(request)
                continue
            if not adapter.is_loading and not self._load(adapter):
                # Nobody overtakes one that waits for room, or it might wait for ever.
                self.waiting += waiting[position:]
                return
            self.waiting.append(request)

    def _load(self, adapter: Adapter) -> bool:
        """Starts to load an adapter, if there is room for it."""
        if len(self._places) >= self._max_loras:
            unused = next((one for one in self._places if not one.holders and not one.is_loading), None)
            if unused is None:
                return False
            self._drop(unused)
        self._places[adapter] = None
        adapter.is_loading = True
        try:
            self._loader.submit(self._finish_loading, adapter)
        except RuntimeError:  # Closed; the engine ends those that wait.
            adapter.is_loading = False
        return True

    def _finish_loading(self, adapter: Adapter) -> None:
        start = time.perf_counter()
        weights: AdapterWeights | None = None
        failure = EngineError(f"adapter {adapter.name!r} cannot be loaded")
        try:
            weights = self._runner.adapter(self._read(adapter.directory))
        except Exception as error:
            failure = EngineError(f"adapter {adapter.name!r} cannot be loaded: {error}")
            failure.__cause__ = error
            logger.log(logging.WARNING, "%s", failure, exc_info=not isinstance(error, KilonovaError))
        with self._lock:
            adapter.is_loading = False
            if weights is None:
                del self._places[adapter]
                refused = [request for request in self.waiting if request.adapter is adapter]
                self.waiting = [request for request in self.waiting if request.adapter is not adapter]
                for request in refused:
                    self._fail(request, failure)
            elif self._known.get(adapter.name) is adapter:
                adapter.weights = weights
                logger.info("adapter %s loaded in %.3f s", adapter.name, time.perf_counter() - start)
            else:
                del self._places[adapter]
            self._serve_waiting()
            self._lock.notify()

    def _drop(self, adapter: Adapter) -> None:
        if adapter in self._places:
            del self._places[adapter]
            adapter.weights = None
            logger.info("adapter %s dropped", adapter.name)
