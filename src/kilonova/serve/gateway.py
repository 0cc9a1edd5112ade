"""What stands between every protocol and the engines: which models a caller may use, and whose request it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kilonova.core.errors import AccessDenied
from kilonova.core.types import GenerationRequest
from kilonova.serve import generation
from kilonova.serve.call import Call
from kilonova.serve.models import ModelServer

if TYPE_CHECKING:
    from kilonova.engine.engine import Generation
    from kilonova.models.registry import ModelEntry
    from kilonova.text.tokenizer import Tokenizer


class Gateway:
    """The only way from a protocol to the models of one server."""

    def __init__(self, models: ModelServer) -> None:
        self.models = models

    def resolve(self, call: Call, identifier: str) -> ModelEntry:
        """The model of any name that `ModelServer.resolve` knows. Raises ModelNotFound or AccessDenied."""
        entry = self.models.resolve(identifier)
        allowed = call.principal.models
        if allowed is not None and entry.name not in allowed:
            raise AccessDenied("this key may not use this model")
        call.model = entry.name
        return entry

    def entries(self, call: Call) -> list[ModelEntry]:
        """Every model that the caller may use."""
        allowed = call.principal.models
        return [entry for entry in self.models.entries() if allowed is None or entry.name in allowed]

    async def submit(
        self, call: Call, entry: ModelEntry, requests: Sequence[GenerationRequest], *, shorten: bool
    ) -> list[Generation]:
        """Queues all requests, or none; `shorten` as in `generation.submit`. Raises what `Engine.submit` raises."""
        engine = await self.models.engine(entry)
        owned = [
            dataclasses.replace(request, tenant=call.principal.key_id, service_tier=call.service_tier)
            for request in requests
        ]
        generations = await generation.submit_all(engine, owned, shorten=shorten)
        call.generations += generations
        return generations

    async def count_tokens(self, entry: ModelEntry, request: GenerationRequest) -> int:
        """The input tokens `request` would be billed for."""
        return await generation.count_tokens(await self.models.engine(entry), request)

    async def tokenizer(self, entry: ModelEntry) -> Tokenizer:
        """The model's tokenizer."""
        return (await self.models.engine(entry)).tokenizer
