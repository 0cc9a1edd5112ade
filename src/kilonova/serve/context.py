"""Requests that do not fit their context, made to fit as their callers or keys ask for it.

Summaries are written by the model that is asked, on account of the same call, and remembered for a while: clients that
send the whole conversation each time pay for summarising each turn once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import ContextPolicy, GenerationRequest, Message, SamplingParams, TextBlock, Usage
from kilonova.serve.call import Call
from kilonova.serve.generation import collect, submit_all, until_disconnect
from kilonova.text.context import ContextReport, Fitting, Selection, fit, fit_prompt, max_summary_tokens

if TYPE_CHECKING:
    from kilonova.engine.engine import Engine

HEADER = "x-kilonova-context"
MAX_SINKS = 1_000_000

_FORM = (
    "Give an object with a 'strategy' ('none', 'truncate_oldest', 'sliding_window' or 'summarize') and, if need be, "
    "the integers 'sinks' and 'reserve'."
)

# Conversations whose summaries are remembered.
_MAX_SUMMARIES = 2048
# Of the context, what is left free for the answer where nothing is said.
_ANSWER_SHARE = 4


class ContextManagement(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How a request spells a `ContextPolicy`, in either protocol."""

    strategy: Literal["none", "truncate_oldest", "sliding_window", "summarize"]
    sinks: Annotated[int, msgspec.Meta(ge=0, le=MAX_SINKS)] | None = None
    reserve: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def policy(self) -> ContextPolicy:
        """The policy it spells."""
        return ContextPolicy(strategy=self.strategy, sinks=self.sinks, reserve=self.reserve)


def parse_policy(value: Any, field: str) -> ContextPolicy | None:
    """The policy of a JSON value, None for null. Raises InvalidRequest, which names the member of `field` at fault."""
    if value is None:
        return None
    try:
        return msgspec.convert(value, ContextManagement).policy()
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        field += path.rstrip("`")
        raise InvalidRequest(f"{field}: {text}. {_FORM}", field=field) from None


class Summaries:
    """The summaries of beginnings of conversations that were used last; threads may share them."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, request: GenerationRequest) -> SummariesOf:
        """Those by the model of `request` for its tenant."""
        return SummariesOf(self, repr((request.tenant, request.model, request.adapter)))

    def get(self, digest: bytes) -> str | None:
        """The summary of a beginning."""
        with self._lock:
            summary = self._known.get(digest)
            if summary is not None:
                self._known.move_to_end(digest)
            return summary

    def put(self, digest: bytes, summary: str) -> None:
        """Remember the summary of a beginning, and forget the one that was not used for longest if there are many."""
        with self._lock:
            self._known[digest] = summary
            if len(self._known) > _MAX_SUMMARIES:
                self._known.popitem(last=False)


class SummariesOf:
    """The summaries by one model for one tenant: a `SummaryMemory`."""

    def __init__(self, summaries: Summaries, owner: str) -> None:
        self._summaries = summaries
        self._owner = owner

    def recall(self, groups: Sequence[Sequence[Message]]) -> tuple[int, str]:
        """The longest beginning with a known summary."""
        digests = self._digests(groups)
        for count in range(len(digests), 0, -1):
            summary = self._summaries.get(digests[count - 1])
            if summary is not None:
                return count, summary
        return 0, ""

    def remember(self, groups: Sequence[Sequence[Message]], summary: str) -> None:
        """Know the summary of all of `groups`."""
        self._summaries.put(self._digests(groups)[-1], summary)

    def _digests(self, groups: Sequence[Sequence[Message]]) -> list[bytes]:
        running = hashlib.sha256(self._owner.encode())
        digests = []
        for group in groups:
            for message in group:
                running.update(hashlib.sha256(repr(message).encode()).digest())
            digests.append(running.digest())
        return digests


@dataclasses.dataclass(slots=True)
class _Prompt:
    """A conversation or raw prompt on its way to fit: with `steps`, as long as the model has to answer `question`."""

    messages: tuple[Message, ...]
    prompt: str | tuple[int, ...] | None
    limit: int = 0
    steps: Fitting | None = None
    question: str = ""
    report: ContextReport | None = None

    def advance(self, answer: str | None = None) -> None:
        assert self.steps is not None
        try:
            self.question = next(self.steps) if answer is None else self.steps.send(answer)
        except StopIteration as end:
            selection, self.report = end.value
            self.messages = selection.of(self.messages)
            self.steps = None


class Fits:
    """Requests on their way to fit, and the prompts they share."""

    def __init__(self, requests: Sequence[GenerationRequest], prompts: Sequence[_Prompt]) -> None:
        self._requests = requests
        self.prompts = prompts

    @property
    def requests(self) -> list[GenerationRequest]:
        """The requests as they are by now."""
        return [
            dataclasses.replace(request, messages=prompt.messages, prompt=prompt.prompt, context=None)
            for request, prompt in zip(self._requests, self.prompts, strict=True)
        ]


class ContextFitter:
    """Makes the requests to one server fit."""

    def __init__(self) -> None:
        self._summaries = Summaries()

    async def prepare(
        self, call: Call, engine: Engine, requests: Sequence[GenerationRequest], *, shorten: bool
    ) -> Fits:
        """The requests, made to fit as far as that takes no model; `shorten` as in `generation.submit`.

        Raises InvalidRequest and ContextLengthExceeded.
        """
        # The choices of one prompt share it.
        prompts: dict[tuple[int, int], _Prompt] = {}
        for request in requests:
            key = (id(request.messages), id(request.prompt))
            if key not in prompts:
                prompts[key] = await self._prepare(call, engine, request, shorten)
        return Fits(requests, [prompts[id(request.messages), id(request.prompt)] for request in requests])

    async def finish(self, call: Call, engine: Engine, fits: Fits) -> list[GenerationRequest]:
        """The requests that fit, once the model has summarised what it must; says in `call` what was done.

        Raises what `Engine.submit` and generations raise, and ClientDisconnected.
        """
        used = Usage(0, 0)
        for request, prompt in zip(fits.requests, fits.prompts, strict=True):
            while prompt.steps is not None:
                text, usage = await _ask(call, engine, _to_question(request, prompt.question, prompt.limit))
                used = Usage(used.input_tokens + usage.input_tokens, used.output_tokens + usage.output_tokens)
                await asyncio.to_thread(prompt.advance, text)
        reports = [prompt.report for prompt in {id(each): each for each in fits.prompts}.values() if prompt.report]
        if reports:
            call.context = _to_fields(reports, used)
            call.headers[HEADER] = _to_header(call.context)
        return fits.requests

    async def _prepare(self, call: Call, engine: Engine, request: GenerationRequest, shorten: bool) -> _Prompt:
        prompt = _Prompt(request.messages, request.prompt)
        policy = request.context or call.principal.context
        if policy is None or policy.strategy == "none":
            return prompt
        if request.sampling.prompt_logprobs is not None:
            # They are asked for in order to judge this very text, so a key's default must not shorten it.
            if request.context is None:
                return prompt
            message = "The log-probabilities of a prompt are those of the whole: it cannot be shortened as well."
            raise InvalidRequest(message, field="context_management")
        prompt.limit = _limit(request, policy, engine.context_length, shorten)
        if prompt.limit < 1:
            return prompt  # The engine words the error.
        if request.prompt is not None:
            prompt.prompt, prompt.report = await asyncio.to_thread(_fit_prompt, engine, request, policy, prompt.limit)
            return prompt

        def count(selection: Selection) -> int:
            return engine.count_tokens(dataclasses.replace(request, messages=selection.of(request.messages)))

        prompt.steps = fit(
            request.messages,
            policy,
            prompt.limit,
            count,
            count_prompt=lambda text: engine.count_tokens(_to_question(request, text, prompt.limit)),
            memory=self._summaries.of(request),
        )
        await asyncio.to_thread(prompt.advance)
        return prompt


def context_fields(call: Call) -> dict[str, Any]:
    """The member of an OpenAI response that says what was done to the prompts of its call; empty for nothing."""
    return {} if call.context is None else {"context_management": call.context}


def _limit(request: GenerationRequest, policy: ContextPolicy, context_length: int, shorten: bool) -> int:
    """The most tokens of a prompt; not what `max_tokens` says where it may be shortened, so that prompts can be counted
    without it."""
    reserve = context_length // _ANSWER_SHARE if policy.reserve is None else policy.reserve
    if reserve >= context_length:
        message = f"'reserve' must be less than the context of {context_length} tokens."
        raise InvalidRequest(message, field="context_management.reserve")
    if not shorten and request.sampling.max_tokens is not None:
        reserve = max(reserve, request.sampling.max_tokens)
    return context_length - reserve


def _fit_prompt(
    engine: Engine, request: GenerationRequest, policy: ContextPolicy, limit: int
) -> tuple[str | tuple[int, ...], ContextReport]:
    prompt = request.prompt
    assert prompt is not None
    token_ids = engine.tokenizer.encode(prompt, allow_special=True) if isinstance(prompt, str) else prompt
    kept, report = fit_prompt(token_ids, policy, limit)
    return kept if report.dropped_tokens else prompt, report


def _to_question(request: GenerationRequest, text: str, limit: int) -> GenerationRequest:
    """What asks the model of `request` for a summary."""
    return GenerationRequest(
        model=request.model,
        adapter=request.adapter,
        messages=(Message("user", (TextBlock(text),)),),
        # Greedy, so that the same conversation has the same summary.
        sampling=SamplingParams(max_tokens=max_summary_tokens(limit), temperature=0.0),
        service_tier=request.service_tier,
        tenant=request.tenant,
    )


async def _ask(call: Call, engine: Engine, request: GenerationRequest) -> tuple[str, Usage]:
    generations = await submit_all(engine, [request], shorten=False)
    call.generations += generations
    answering = collect(generations)
    try:
        (answer,) = await (answering if call.receive is None else until_disconnect(call.receive, answering))
    finally:
        for generation in generations:
            generation.cancel()
    return answer.text, answer.finished.usage


def _to_fields(reports: Sequence[ContextReport], used: Usage) -> dict[str, Any]:
    """What was done to a call's prompts together, as bodies of responses say it."""
    summaries = [report.summary for report in reports if report.summary]
    notes = dict.fromkeys(report.note for report in reports if report.note)
    fields: dict[str, Any] = {
        # Of several prompts, some may have fitted as they were.
        "strategy": max(reports, key=lambda report: report.dropped_tokens).strategy,
        "dropped_messages": sum(report.dropped_messages for report in reports),
        "dropped_tokens": sum(report.dropped_tokens for report in reports),
    }
    if summaries:
        fields |= {"summary_tokens": sum(report.summary_tokens for report in reports), "summary": summaries[0]}
    if used.total_tokens:
        fields["summary_usage"] = {"input_tokens": used.input_tokens, "output_tokens": used.output_tokens}
    if notes:
        fields["note"] = "; ".join(notes)
    return fields


def _to_header(fields: Mapping[str, Any]) -> str:
    flat = {name: value for name, value in fields.items() if name not in ("summary", "summary_usage")}
    usage = fields.get("summary_usage", {})
    flat |= {f"summary_{name}": value for name, value in usage.items()}
    return "; ".join(f"{name}={value}" for name, value in flat.items())
