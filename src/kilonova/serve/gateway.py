"""What stands between every protocol and the engines: which models a caller may use, and whose request it is."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from kilonova.core.errors import AccessDenied, UnsuitableModel
from kilonova.core.types import GenerationRequest
from kilonova.serve import generation
from kilonova.serve.call import Call, ImageOrder, Work
from kilonova.serve.context import ContextFitter
from kilonova.serve.models import ModelServer

if TYPE_CHECKING:
    from kilonova.engine.engine import Generation
    from kilonova.models.registry import ModelEntry
    from kilonova.serve.ledger.ledger import Ledger
    from kilonova.serve.pictures import PictureJob
    from kilonova.serve.telemetry.metrics import Metrics
    from kilonova.studio.tasks import ImageRequest
    from kilonova.text.tokenizer import Tokenizer

T = TypeVar("T")


class Gateway:
    """The only way from a protocol to the models of one server."""

    def __init__(self, models: ModelServer, *, metrics: Metrics | None = None, ledger: Ledger | None = None) -> None:
        self.models = models
        self._metrics = metrics
        self._ledger = ledger
        self._context = ContextFitter()

    def resolve(self, call: Call, identifier: str) -> ModelEntry:
        """The model of any name that `ModelServer.resolve` knows. Raises ModelNotFound or AccessDenied."""
        entry = self.models.resolve(identifier)
        allowed = call.principal.models
        if allowed is not None and entry.name not in allowed:
            raise AccessDenied("this key may not use this model")
        call.model = entry.name
        return entry

    def resolve_text(self, call: Call, identifier: str) -> ModelEntry:
        """As `resolve`, of a model that writes text. Raises UnsuitableModel for others."""
        entry = self.resolve(call, identifier)
        if entry.makes_pictures:
            raise UnsuitableModel(f"{entry.name} makes pictures, not text")
        return entry

    def resolve_pictures(self, call: Call, identifier: str) -> ModelEntry:
        """As `resolve`, of a model that makes pictures. Raises UnsuitableModel for others."""
        entry = self.resolve(call, identifier)
        if not entry.makes_pictures:
            raise UnsuitableModel(f"{entry.name} writes text, and makes no pictures")
        return entry

    def entries(self, call: Call) -> list[ModelEntry]:
        """Every model that the caller may use."""
        allowed = call.principal.models
        return [entry for entry in self.models.entries() if allowed is None or entry.name in allowed]

    async def submit(
        self, call: Call, entry: ModelEntry, requests: Sequence[GenerationRequest], *, shorten: bool
    ) -> list[Generation]:
        """Queues all requests, or none; `shorten` as in `generation.submit`.

        What does not fit is made to fit first where the request or its key asks for it. The call is in the ledger
        before the engine gets it. Raises what `ContextFitter`, `Ledger.open` and `Engine.submit` raise.
        """
        owned = [
            dataclasses.replace(request, tenant=call.principal.key_id, service_tier=call.service_tier)
            for request in requests
        ]
        if self._metrics is not None:
            call.observe_chunk = self._metrics.between_chunks(entry.name)
        async with call.interruptible():
            engine = await self.models.engine(entry)
            fits = await self._context.prepare(call, engine, owned, shorten=shorten)
            if self._ledger is not None:
                base = self.models.resolve(entry.base) if entry.base else None
                count = partial(generation.count_tokens, engine)
                await self._ledger.open(call, entry, fits.requests, base=base, count_tokens=count)
            owned = await self._context.finish(call, engine, fits)
            call.submitted = time.perf_counter()
            generations = await generation.submit_all(engine, owned, shorten=shorten)
            call.generations += generations
            call.sharing |= _sharing(owned, generations)
        if call.failure is not None:  # It came just as they were queued.
            for each in generations:
                each.cancel()
            raise call.failure
        return generations

    async def decode(self, call: Call, entry: ModelEntry, parse: Callable[[], T]) -> T:
        """What `parse` makes of a request for pictures, on a thread, and not before the model is there: decoded
        pictures take much memory to wait with. Raises what `ModelServer.studio` and `parse` raise.
        """
        async with call.interruptible():
            await self.models.studio(entry)
            return await asyncio.to_thread(parse)

    async def draw(
        self, call: Call, entry: ModelEntry, requests: Sequence[ImageRequest], *, transparent: bool = False
    ) -> PictureJob:
        """Queues a job of pictures, all of one size and quality; `transparent` as in `Studio.submit`.

        The call is in the ledger before the studio gets it. Raises what `ModelServer.studio`, `Ledger.open_images` and
        `Studio.submit` raise.
        """
        async with call.interruptible():
            studio = await self.models.studio(entry)
            call.images = _order(requests)
            if self._ledger is not None:
                await self._ledger.open_images(call, entry)
            call.submitted = time.perf_counter()
            job = studio.submit(requests, transparent=transparent, tenant=call.principal.key_id, tier=call.service_tier)
            call.generations.append(job)
        if call.failure is not None:
            job.cancel()
            raise call.failure
        return job

    async def count_tokens(self, call: Call, entry: ModelEntry, request: GenerationRequest) -> int:
        """The input tokens `request` would be billed for; where a summary would be needed first, those without it."""
        engine = await self.models.engine(entry)
        owned = dataclasses.replace(request, tenant=call.principal.key_id)
        fits = await self._context.prepare(call, engine, [owned], shorten=True)
        return await generation.count_tokens(engine, fits.requests[0])

    async def tokenizer(self, entry: ModelEntry) -> Tokenizer:
        """The model's tokenizer."""
        return (await self.models.engine(entry)).tokenizer


def _order(requests: Sequence[ImageRequest]) -> ImageOrder:
    from kilonova.serve.picture_files import size_of

    width, height = size_of(requests[0])
    count = sum(request.num_images for request in requests)
    return ImageOrder(count=count, width=width, height=height, premium=requests[0].quality == "premium")


def _sharing(requests: Sequence[GenerationRequest], generations: Sequence[Generation]) -> set[Work]:
    """The generations whose prompt is that of an earlier one, as with the choices of one answer."""
    prompts: set[tuple[int, int]] = set()
    sharing: set[Work] = set()
    for request, each in zip(requests, generations, strict=True):
        prompt = id(request.messages), id(request.prompt)
        if prompt in prompts:
            sharing.add(each)
        prompts.add(prompt)
    return sharing
