"""The models a server answers for: names to registry entries, and one engine for each model and its adapters, or one
studio for each model of pictures."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import re
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kilonova.core.errors import ModelNotFound, Unavailable
from kilonova.engine.config import EngineConfig

if TYPE_CHECKING:
    from kilonova.engine.engine import Engine
    from kilonova.models.registry import ModelEntry, Registry
    from kilonova.serve.pictures import Studio

logger = logging.getLogger(__name__)

_ARN = re.compile(
    r"arn:aws(?:-[^:]+)?:bedrock:[a-z0-9-]{1,20}:(?:[0-9]{12})?:"
    r"(?:foundation-model|inference-profile|application-inference-profile)/(?P<id>.+)"
)
_PROFILE = re.compile(r"(?:us|eu|apac|global)\.(?P<id>.+)")
_CONTEXT_SUFFIX = re.compile(r"(?P<id>.+:\d+):\d+k")

# When to come back to a model whose engine is being replaced.
_RETRY_SECONDS = 2.0
# An engine that breaks sooner than this after its start did not come back for good: the next attempt waits, twice as
# long each time.
_STABLE_SECONDS = 60.0
_MAX_DELAY_SECONDS = 60.0


class _Rebuild:
    """The replacements of one model's engine: how many, whether one is under way, and how long it waits first."""

    def __init__(self) -> None:
        self.count = 0
        self.is_running = False
        self.delay = 0.0
        self._last_start = -math.inf

    def begin(self) -> None:
        self.is_running = True
        if time.monotonic() - self._last_start < _STABLE_SECONDS:
            self._wait_longer()
        else:
            self.delay = 0.0

    def failed(self) -> None:
        self._wait_longer()

    def done(self) -> None:
        self.count += 1
        self._last_start = time.monotonic()
        self.is_running = False

    def _wait_longer(self) -> None:
        self.delay = min(_MAX_DELAY_SECONDS, max(1.0, 2 * self.delay))


class ModelServer:
    """Resolves the names clients use, and builds the engine of each model once, when it is first needed or before; for
    a model of pictures, its studio.

    An adapter is served by the engine of its base. An engine that broke is replaced by a new one, in the background.
    """

    def __init__(
        self, registry: Registry, engine: EngineConfig | None = None, drafts: Mapping[str, Path] | None = None
    ) -> None:
        self.registry = registry
        self._config = engine or EngineConfig()
        self._drafts = {registry.get(name).name: directory for name, directory in (drafts or {}).items()}
        self._engines: dict[str, Engine] = {}
        self._studios: dict[str, Studio] = {}
        self._locks = {entry.name: threading.Lock() for entry in registry.entries()}
        self._rebuilds: dict[str, _Rebuild] = {}
        self._is_closing = threading.Event()

    def entries(self) -> list[ModelEntry]:
        """Every entry, in the registry's order."""
        return list(self.registry.entries())

    def resolve(self, identifier: str) -> ModelEntry:
        """The entry of a name, a Bedrock model id with or without context suffix, an inference profile, or an ARN.

        Raises ModelNotFound.
        """
        arn = _ARN.fullmatch(identifier)
        candidate = arn["id"] if arn else identifier
        try:
            return self.registry.get(candidate)
        except ModelNotFound:
            profile = _PROFILE.fullmatch(candidate)
            bare = profile["id"] if profile else candidate
            suffixed = _CONTEXT_SUFFIX.fullmatch(bare)
            bare = suffixed["id"] if suffixed else bare
            if bare == candidate:
                raise
            return self.registry.get(bare)

    def prepare(self, entries: Iterable[ModelEntry]) -> None:
        """Builds what serves the entries; raises what `load` and `load_studio` raise."""
        for entry in entries:
            if entry.makes_pictures:
                self.load_studio(entry)
            else:
                self.load(entry)

    def load_studio(self, entry: ModelEntry) -> Studio:
        """The entry's studio, built now if it is not there yet; blocks meanwhile.

        Raises CheckpointError and ConfigError.
        """
        from kilonova.serve.pictures import Studio

        with self._locks[entry.name]:
            if entry.name not in self._studios:
                start = time.perf_counter()
                self._studios[entry.name] = Studio.open(entry.directory, max_queue=self._config.max_queue)
                logger.info("model %s loaded in %.2f s", entry.name, time.perf_counter() - start)
            return self._studios[entry.name]

    async def studio(self, entry: ModelEntry) -> Studio:
        """As `load_studio`, without blocking the event loop."""
        studio = self._studios.get(entry.name)
        return studio if studio is not None else await asyncio.to_thread(self.load_studio, entry)

    def load(self, entry: ModelEntry) -> Engine:
        """The entry's engine, built now if it is not there yet; blocks meanwhile.

        Raises CheckpointError, ConfigError for an adapter that cannot be served, and Unavailable while the engine is
        being replaced.
        """
        self._check_up(entry)
        engine = self._engines.get(entry.name)
        if engine is not None:
            return engine
        with self._locks[entry.name]:
            if entry.name not in self._engines and entry.base:
                engine = self.load(self.registry.get(entry.base))
                engine.add_adapter(entry.name, entry.directory)
                self._engines[entry.name] = engine
            if entry.name not in self._engines:
                self._engines[entry.name] = self._build(entry)
            return self._engines[entry.name]

    async def engine(self, entry: ModelEntry) -> Engine:
        """As `load`, without blocking the event loop."""
        engine = self._engines.get(entry.name)
        if engine is not None and not engine.is_closed:
            return engine
        self.check()
        self._check_up(entry)
        return await asyncio.to_thread(self.load, entry)

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines that are up, by their models' names; adapters are not among these."""
        engines = self._engines.copy()
        return {entry.name: engines[entry.name] for entry in self.entries() if not entry.base and entry.name in engines}

    @property
    def studios(self) -> Mapping[str, Studio]:
        """The studios that are up, by their models' names."""
        return self._studios.copy()

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often the engine of each model has been replaced, for those it happened to."""
        return {name: rebuild.count for name, rebuild in self._rebuilds.items()}

    @property
    def down(self) -> list[str]:
        """Models, and adapters of them, whose engine broke and is not back yet."""
        return [entry.name for entry in self.entries() if self._is_down(entry)]

    def check(self) -> list[str]:
        """Begins to replace every engine that broke since the last call; these models' and their adapters' names."""
        if self._is_closing.is_set():
            return []
        broken = [name for name, engine in self.engines.items() if engine.is_closed and not self._is_rebuilding(name)]
        for name in broken:
            rebuild = self._rebuilds.setdefault(name, _Rebuild())
            rebuild.begin()
            threading.Thread(target=self._rebuild, args=(name, rebuild), daemon=True).start()
        return [entry.name for entry in self.entries() if (entry.base or entry.name) in broken] if broken else []

    def _rebuild(self, name: str, rebuild: _Rebuild) -> None:
        entry = self.registry.get(name)
        for each in [each for each in self.entries() if each.base == name]:
            self._engines.pop(each.name, None)
        # Its memory is needed for the next.
        self._engines.pop(name).close()
        gc.collect()
        while not self._is_closing.wait(rebuild.delay):
            logger.warning("the engine of %s broke; it is started again", name)
            try:
                with self._locks[name]:
                    engine = self._build(entry)
            except Exception:
                logger.exception("the engine of %s cannot be started", name)
                rebuild.failed()
                continue
            self._engines[name] = engine
            rebuild.done()
            if self._is_closing.is_set():
                engine.close()
            return

    def _is_rebuilding(self, name: str) -> bool:
        rebuild = self._rebuilds.get(name)
        return rebuild is not None and rebuild.is_running

    def _is_down(self, entry: ModelEntry) -> bool:
        name = entry.base or entry.name
        engine = self._engines.get(name)
        return self._is_rebuilding(name) or (engine is not None and engine.is_closed)

    def _check_up(self, entry: ModelEntry) -> None:
        if self._is_down(entry):
            rebuild = self._rebuilds.get(entry.base or entry.name)
            retry_after = _RETRY_SECONDS if rebuild is None else max(_RETRY_SECONDS, rebuild.delay)
            raise Unavailable(f"the engine of {entry.name} is being restarted; try again", retry_after=retry_after)

    def _build(self, entry: ModelEntry) -> Engine:
        from kilonova.engine.engine import Engine

        start = time.perf_counter()
        engine = Engine.from_directory(entry.directory, self._config, draft_directory=self._drafts.get(entry.name))
        logger.info("model %s loaded in %.2f s", entry.name, time.perf_counter() - start)
        return engine

    def health(self) -> dict[str, dict[str, Any]]:
        """For each model whether its engine is up, for each adapter whether its weights are loaded; and how many
        requests run and wait, those of a model's adapters among its own."""
        report: dict[str, dict[str, Any]] = {}
        for entry in self.entries():
            engine = self._engines.get(entry.name)
            stats = engine.stats() if engine is not None else None
            use = stats.adapters[entry.name] if stats is not None and entry.base else None
            counts: Any = use or stats
            studio = self._studios.get(entry.name)
            if studio is not None:
                counts = studio.stats()
            report[entry.name] = {
                "loaded": use.loaded if use is not None else engine is not None or studio is not None,
                "running": counts.running if counts is not None else 0,
                "waiting": counts.waiting if counts is not None else 0,
            }
            if self._is_down(entry):
                report[entry.name]["restarting"] = True
        return report

    def close(self) -> None:
        """Stops every engine."""
        self._is_closing.set()
        for studio in self.studios.values():
            studio.close()
        for engine in set(self._engines.values()):
            engine.close()
        self._engines.clear()
        self._studios.clear()
