"""The models a server answers for: names to registry entries, and one engine for each model and its adapters."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kilonova.core.errors import ModelNotFound
from kilonova.engine.config import EngineConfig

if TYPE_CHECKING:
    from kilonova.engine.engine import Engine
    from kilonova.models.registry import ModelEntry, Registry

logger = logging.getLogger(__name__)

_ARN = re.compile(
    r"arn:aws(?:-[^:]+)?:bedrock:[a-z0-9-]{1,20}:(?:[0-9]{12})?:(?:foundation-model|inference-profile)/(?P<id>.+)"
)
_PROFILE = re.compile(r"(?:us|eu|apac|global)\.(?P<id>.+)")
_CONTEXT_SUFFIX = re.compile(r"(?P<id>.+:\d+):\d+k")


class ModelServer:
    """Resolves the names clients use, and builds the engine of each model once, when it is first needed or before.

    An adapter is served by the engine of its base.
    """

    def __init__(
        self, registry: Registry, engine: EngineConfig | None = None, drafts: Mapping[str, Path] | None = None
    ) -> None:
        self.registry = registry
        self._config = engine or EngineConfig()
        self._drafts = {registry.get(name).name: directory for name, directory in (drafts or {}).items()}
        self._engines: dict[str, Engine] = {}
        self._locks = {entry.name: threading.Lock() for entry in registry.entries()}

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

    def load(self, entry: ModelEntry) -> Engine:
        """The entry's engine, built now if it is not there yet; blocks meanwhile.

        Raises CheckpointError, and ConfigError for an adapter that cannot be served.
        """
        engine = self._engines.get(entry.name)
        if engine is not None:
            return engine
        with self._locks[entry.name]:
            if entry.name not in self._engines and entry.base:
                engine = self.load(self.registry.get(entry.base))
                engine.add_adapter(entry.name, entry.directory)
                self._engines[entry.name] = engine
            if entry.name not in self._engines:
                from kilonova.engine.engine import Engine

                start = time.perf_counter()
                self._engines[entry.name] = Engine.from_directory(
                    entry.directory, self._config, draft_directory=self._drafts.get(entry.name)
                )
                logger.info("model %s loaded in %.2f s", entry.name, time.perf_counter() - start)
            return self._engines[entry.name]

    async def engine(self, entry: ModelEntry) -> Engine:
        """As `load`, without blocking the event loop."""
        engine = self._engines.get(entry.name)
        return engine if engine is not None else await asyncio.to_thread(self.load, entry)

    def health(self) -> dict[str, dict[str, Any]]:
        """For each model whether its engine is up, for each adapter whether its weights are loaded; and how many
        requests run and wait, those of a model's adapters among its own."""
        report: dict[str, dict[str, Any]] = {}
        for entry in self.entries():
            engine = self._engines.get(entry.name)
            stats = engine.stats() if engine is not None else None
            use = stats.adapters[entry.name] if stats is not None and entry.base else None
            counts = use or stats
            report[entry.name] = {
                "loaded": use.loaded if use is not None else engine is not None,
                "running": counts.running if counts is not None else 0,
                "waiting": counts.waiting if counts is not None else 0,
            }
        return report

    def close(self) -> None:
        """Stops every engine."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
