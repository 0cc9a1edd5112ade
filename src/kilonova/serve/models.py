"""The models a server answers for: names to registry entries, and one engine an entry."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from kilonova.core.errors import ModelNotFound

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
    """Resolves the names clients use, and builds the engine of each entry once, when it is first needed or before."""

    def __init__(self, registry: Registry, *, max_num_seqs: int = 32, max_context: int | None = None) -> None:
        self.registry = registry
        self._max_num_seqs = max_num_seqs
        self._max_context = max_context
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
        """The entry's engine, built now if it is not there yet; blocks meanwhile. Raises CheckpointError."""
        engine = self._engines.get(entry.name)
        if engine is not None:
            return engine
        with self._locks[entry.name]:
            if entry.name not in self._engines:
                from kilonova.engine.engine import Engine

                start = time.perf_counter()
                self._engines[entry.name] = Engine.from_directory(
                    entry.directory, max_num_seqs=self._max_num_seqs, max_context=self._max_context
                )
                logger.info("model %s loaded in %.2f s", entry.name, time.perf_counter() - start)
            return self._engines[entry.name]

    async def engine(self, entry: ModelEntry) -> Engine:
        """As `load`, without blocking the event loop."""
        engine = self._engines.get(entry.name)
        return engine if engine is not None else await asyncio.to_thread(self.load, entry)

    def health(self) -> dict[str, dict[str, Any]]:
        """For each entry whether its engine is up, and how many requests run and wait in it."""
        report: dict[str, dict[str, Any]] = {}
        for entry in self.entries():
            engine = self._engines.get(entry.name)
            stats = engine.stats() if engine is not None else None
            report[entry.name] = {
                "loaded": engine is not None,
                "running": stats.running if stats is not None else 0,
                "waiting": stats.waiting if stats is not None else 0,
            }
        return report

    def close(self) -> None:
        """Stops every engine."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
