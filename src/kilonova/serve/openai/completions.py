"""POST /v1/completions: plain continuations of text or token ids, with the log-probabilities that evaluation reads."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import (
    Finished,
    GenerationEvent,
    GenerationRequest,
    PromptProcessed,
    TextDelta,
    TokenLogprob,
    Usage,
)
from kilonova.serve.call import Call
from kilonova.serve.context import context_fields
from kilonova.serve.gateway import Gateway
from kilonova.serve.generation import Answer, StreamedResponse, begin, collect, until_disconnect
from kilonova.serve.http import read_body
from kilonova.serve.openai.errors import decode, fields_named
from kilonova.serve.openai.formats import grammar_field, to_grammar
from kilonova.serve.openai.requests import CompletionRequest, check_completion
from kilonova.serve.openai.sampling import to_sampling, to_service_tier
from kilonova.serve.openai.wire import (
    FINISH_REASONS,
    SSE_DONE,
    SSE_HEADERS,
    SSE_MEDIA_TYPE,
    finite,
    from_prompt_logprobs,
    sse,
    sse_error,
    to_usage,
    with_choice_seeds,
)

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry
    from kilonova.text.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 16
MAX_PROMPTS = 2048

Prompt = str | tuple[int, ...]

_decoder = msgspec.json.Decoder(CompletionRequest)


class Completions:
    """The endpoint over the models of one server."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def create(self, request: Request, call: Call) -> Response:
        """Answers one request, streamed or whole; choices are in the order of the prompts, `n` for each."""
        body: CompletionRequest = decode(_decoder, await read_body(request))
        entry = self.gateway.resolve_text(call, body.model)
        call.metadata = body.metadata or {}
        call.service_tier = to_service_tier(body)
        n = body.n or 1
        prompts = _to_prompts(body.prompt)
        requests = [each for prompt in prompts for each in with_choice_seeds(_to_request(body, prompt, entry), n)]
        with fields_named({"grammar": grammar_field(body)}):
            generations = await self.gateway.submit(call, entry, requests, shorten=body.max_tokens is None)
        tokenizer = await self.gateway.tokenizer(entry)
        choices = [_Choice(index, body, prompt, tokenizer) for index, prompt in enumerate(_each(prompts, n))]
        head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
        }
        if body.stream:
            first, events = await begin(request.receive, generations)
            chunks = _stream(call, head, first, events, choices, n, include_usage=body.include_usage)
            return StreamedResponse(chunks, [events], media_type=SSE_MEDIA_TYPE, headers=SSE_HEADERS)
        answers = await until_disconnect(request.receive, collect(generations))
        response = {
            **head,
            "choices": [choice.whole(answer) for choice, answer in zip(choices, answers, strict=True)],
            "usage": to_usage({index: answer.finished.usage for index, answer in enumerate(answers)}, n),
            **context_fields(call),
        }
        return Response(msgspec.json.encode(response), media_type="application/json")


def _to_request(body: CompletionRequest, prompt: Prompt, entry: ModelEntry) -> GenerationRequest:
    check_completion(body)
    sampling = to_sampling(
        body,
        entry,
        max_tokens=DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
        max_tokens_field="max_tokens",
        logprobs=body.logprobs,
        prompt_logprobs=_prompt_logprobs(body),
    )
    return GenerationRequest(
        model=entry.name,
        adapter=entry.adapter,
        prompt=prompt,
        sampling=sampling,
        grammar=to_grammar(body),
        context=body.context,
    )


def _to_prompts(prompt: str | list[Any]) -> list[Prompt]:
    if isinstance(prompt, str):
        prompts: list[Prompt] = [prompt]
    elif all(isinstance(each, int) for each in prompt):
        prompts = [tuple(prompt)]
    elif any(isinstance(each, int) for each in prompt):
        raise InvalidRequest("A prompt is text or token ids, not both.", field="prompt")
    else:
        prompts = [each if isinstance(each, str) else tuple(each) for each in prompt]
    if not all(prompts) or len(prompts) > MAX_PROMPTS:
        raise InvalidRequest(f"Give 1 to {MAX_PROMPTS} prompts of at least one token each.", field="prompt")
    return prompts


def _each(prompts: Sequence[Prompt], n: int) -> list[Prompt]:
    return [prompt for prompt in prompts for _ in range(n)]


def _prompt_logprobs(body: CompletionRequest) -> int | None:
    if not body.echo:
        return body.prompt_logprobs
    # Without log-probabilities the engine would take no tokens to mean nothing to do.
    wanted = 0 if body.logprobs is None and body.max_tokens == 0 else body.logprobs
    return max((each for each in (wanted, body.prompt_logprobs) if each is not None), default=None)


class _Choice:
    """One choice: the echoed prompt before what is generated, and log-probabilities with running offsets."""

    def __init__(self, index: int, body: CompletionRequest, prompt: Prompt, tokenizer: Tokenizer) -> None:
        self._index = index
        self._body = body
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._offset = 0

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The choice of an answer that is not streamed."""
        echo, tokens = self._echo(answer.prompt)
        choice = self._choice(
            echo + answer.text, [*tokens, *answer.logprobs], FINISH_REASONS[answer.finished.stop_reason]
        )
        return {**choice, **self._prompt_report(answer.prompt)}

    def chunk(self, event: GenerationEvent) -> dict[str, Any] | None:
        """The choice of the chunk that tells `event`; None where there is nothing to tell."""
        if isinstance(event, PromptProcessed):
            text, tokens = self._echo(event)
            report = self._prompt_report(event)
            return {**self._choice(text, tokens), **report} if text or tokens or report else None
        if isinstance(event, TextDelta):
            return self._choice(event.text, event.logprobs) if event.text or event.logprobs else None
        return self._choice("", (), FINISH_REASONS[event.stop_reason]) if isinstance(event, Finished) else None

    def _choice(
        self, text: str, tokens: Sequence[TokenLogprob | str], finish_reason: str | None = None
    ) -> dict[str, Any]:
        wanted = self._body.logprobs is not None and (tokens or not self._body.stream)
        return {
            "index": self._index,
            "text": text,
            "logprobs": self._logprobs(tokens) if wanted else None,
            "finish_reason": finish_reason,
        }

    def _echo(self, event: PromptProcessed) -> tuple[str, list[TokenLogprob | str]]:
        """The echoed prompt and its tokens; a token without a log-probability is its text alone."""
        if not self._body.echo:
            return "", []
        text = (
            self._prompt
            if isinstance(self._prompt, str)
            else self._tokenizer.decode(self._prompt, skip_special_tokens=False)
        )
        if self._body.logprobs is None:
            return text, []
        tokens = zip(event.token_ids, event.logprobs, strict=True)
        return text, [self._tokenizer.token_text(token) if entry is None else entry for token, entry in tokens]

    def _prompt_report(self, event: PromptProcessed) -> dict[str, Any]:
        if self._body.prompt_logprobs is None:
            return {}
        return {"prompt_logprobs": from_prompt_logprobs(event.logprobs)}

    def _logprobs(self, tokens: Iterable[TokenLogprob | str]) -> dict[str, list[Any]]:
        report: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        most = self._body.logprobs or 0
        for token in tokens:
            text = token if isinstance(token, str) else token.text
            report["tokens"].append(text)
            report["text_offset"].append(self._offset)
            self._offset += len(text)
            if isinstance(token, str):
                report["token_logprobs"].append(None)
                report["top_logprobs"].append(None)
                continue
            top: dict[str, float] = {}
            for alternative in (*token.top[:most], token):
                top.setdefault(alternative.text, finite(alternative.logprob))
            report["token_logprobs"].append(finite(token.logprob))
            report["top_logprobs"].append(top)
        return report


async def _stream(
    call: Call,
    head: dict[str, Any],
    first: tuple[int, GenerationEvent],
    events: AsyncGenerator[tuple[int, GenerationEvent], None],
    choices: Sequence[_Choice],
    n: int,
    *,
    include_usage: bool,
) -> AsyncGenerator[bytes, None]:
    usage = {"usage": None} if include_usage else {}
    usages: dict[int, Usage] = {}
    try:
        following: tuple[int, GenerationEvent] | None = first
        while following is not None:
            index, event = following
            if isinstance(event, Finished):
                usages[index] = event.usage
            choice = choices[index].chunk(event)
            if choice is not None:
                yield sse({**head, "choices": [choice], **usage})
            following = await anext(events, None)
        if include_usage:
            yield sse({**head, "choices": [], "usage": to_usage(usages, n)})
    except Exception as error:
        yield sse_error(call, error)
    yield SSE_DONE
