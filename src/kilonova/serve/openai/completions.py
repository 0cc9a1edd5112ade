"""POST /v1/completions: plain continuations of text or token ids, with the log-probabilities that evaluation reads."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

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
)
from kilonova.serve.call import Call
from kilonova.serve.gateway import Gateway
from kilonova.serve.generation import StreamedResponse, begin, collect, until_disconnect
from kilonova.serve.http import read_body
from kilonova.serve.openai.errors import decode
from kilonova.serve.openai.requests import CompletionRequest, check_supported, to_sampling
from kilonova.serve.openai.wire import (
    FINISH_REASONS,
    SSE_DONE,
    SSE_HEADERS,
    SSE_MEDIA_TYPE,
    finite,
    sse,
    sse_error,
    to_usage,
    with_choice_seeds,
)

if TYPE_CHECKING:
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
        entry = self.gateway.resolve(call, body.model)
        _check(body)
        prompts = _to_prompts(body.prompt)
        max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
        sampling = to_sampling(
            body,
            entry,
            max_tokens=max_tokens,
            max_tokens_field="max_tokens",
            logprobs=body.logprobs,
            prompt_logprobs=_prompt_logprobs(body),
        )
        requests = [
            each
            for prompt in prompts
            for each in with_choice_seeds(
                GenerationRequest(model=entry.name, adapter=entry.adapter, prompt=prompt, sampling=sampling),
                body.n or 1,
            )
        ]
        generations = await self.gateway.submit(call, entry, requests, shorten=body.max_tokens is None)
        tokenizer = await self.gateway.tokenizer(entry)
        echoes = [_Choice(body, prompt, tokenizer) for prompt in prompts for _ in range(body.n or 1)]
        head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
        }
        if body.stream:
            first, events = await begin(request.receive, generations)
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            chunks = _stream(head, first, events, echoes, body.n or 1, include_usage=include_usage)
            return StreamedResponse(chunks, [events], media_type=SSE_MEDIA_TYPE, headers=SSE_HEADERS)
        answers = await until_disconnect(request.receive, collect(generations))
        choices = []
        for index, (answer, choice) in enumerate(zip(answers, echoes, strict=True)):
            echo_text, echo_logprobs = choice.prompt(answer.prompt)
            logprobs = choice.logprobs([*echo_logprobs, *answer.logprobs])
            finish_reason = FINISH_REASONS[answer.finished.stop_reason]
            choices.append(_to_choice(index, echo_text + answer.text, logprobs, finish_reason))
        prompt_tokens = sum(answer.finished.usage.input_tokens for answer in answers[:: body.n or 1])
        usage = to_usage(prompt_tokens, [answer.finished for answer in answers])
        return Response(
            msgspec.json.encode({**head, "choices": choices, "usage": usage}), media_type="application/json"
        )


def _check(body: CompletionRequest) -> None:
    check_supported(body)
    if body.suffix:
        raise InvalidRequest("'suffix' is not supported with this model.", field="suffix")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise InvalidRequest("'best_of' is only supported at the value of 'n'.", field="best_of")
    if body.max_tokens == 0 and not body.echo:
        raise InvalidRequest("'max_tokens' must be at least 1 unless 'echo' is true.", field="max_tokens")


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


def _prompt_logprobs(body: CompletionRequest) -> int | None:
    if not body.echo:
        return None
    # Without log-probabilities the engine would take no tokens to mean nothing to do.
    return 0 if body.logprobs is None and body.max_tokens == 0 else body.logprobs


class _Choice:
    """What a choice adds to the generated text: the echoed prompt, and log-probabilities with running offsets."""

    def __init__(self, body: CompletionRequest, prompt: Prompt, tokenizer: Tokenizer) -> None:
        self._echo = bool(body.echo)
        self._wants_logprobs = body.logprobs is not None
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._offset = 0

    def prompt(self, event: PromptProcessed) -> tuple[str, list[TokenLogprob | str]]:
        """The echoed prompt and its tokens; a token without a log-probability is its text alone."""
        if not self._echo:
            return "", []
        text = (
            self._prompt
            if isinstance(self._prompt, str)
            else self._tokenizer.decode(self._prompt, skip_special_tokens=False)
        )
        if not self._wants_logprobs:
            return text, []
        tokens = zip(event.token_ids, event.logprobs, strict=True)
        return text, [self._tokenizer.token_text(token) if entry is None else entry for token, entry in tokens]

    def logprobs(self, tokens: Iterable[TokenLogprob | str]) -> dict[str, list[Any]] | None:
        """The `logprobs` of the next tokens of the choice, or None where they were not asked for."""
        if not self._wants_logprobs:
            return None
        report: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
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
            for alternative in (*token.top, token):
                top.setdefault(alternative.text, finite(alternative.logprob))
            report["token_logprobs"].append(finite(token.logprob))
            report["top_logprobs"].append(top)
        return report


def _to_choice(index: int, text: str, logprobs: Any, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


async def _stream(
    head: dict[str, Any],
    first: tuple[int, GenerationEvent],
    events: AsyncGenerator[tuple[int, GenerationEvent], None],
    choices: Sequence[_Choice],
    n: int,
    *,
    include_usage: bool,
) -> AsyncGenerator[bytes, None]:
    usage = {"usage": None} if include_usage else {}
    finished: dict[int, Finished] = {}
    try:
        following: tuple[int, GenerationEvent] | None = first
        while following is not None:
            index, event = following
            text, tokens, finish_reason = "", cast("list[TokenLogprob | str]", []), None
            if isinstance(event, PromptProcessed):
                text, tokens = choices[index].prompt(event)
            elif isinstance(event, TextDelta):
                text, tokens = event.text, list(event.logprobs)
            elif isinstance(event, Finished):
                finished[index] = event
                finish_reason = FINISH_REASONS[event.stop_reason]
            if text or tokens or finish_reason:
                logprobs = choices[index].logprobs(tokens) if tokens else None
                yield sse({**head, "choices": [_to_choice(index, text, logprobs, finish_reason)], **usage})
            following = await anext(events, None)
        if include_usage:
            prompt_tokens = sum(each.usage.input_tokens for index, each in finished.items() if index % n == 0)
            yield sse({**head, "choices": [], "usage": to_usage(prompt_tokens, list(finished.values()))})
    except Exception as error:
        yield sse_error(error)
    yield SSE_DONE
