"""A model behind the OpenAI protocol: streamed plain or chat completions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
import msgspec

from kilonova.core.errors import ConfigError, ModelNotFound
from kilonova.evals.latency.endpoint import EndpointError, Reply, ReplyBuilder, RequestRefused

_DATA = "data:"
_DONE = "[DONE]"


class OpenAIEndpoint:
    """A model at the base URL of an OpenAI-compatible server; `/v1` is added to a URL without a path.

    Answers are greedy. Servers that know `ignore_eos`, as vLLM, SGLang and Kilonova do, are told to go on until
    `max_tokens`; it is left out from the first time a server refuses it. `timeout` is in seconds, for the connection
    and for each wait between two events.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        kind: Literal["completions", "chat"] = "completions",
        api_key: str | None = None,
        connections: int = 64,
        timeout: float = 300.0,
    ) -> None:
        self.url = base_url(url)
        self.model = model
        self.kind = kind
        self._ignore_eos = True
        self._client = _client(api_key, connections, timeout)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What every request asks for."""
        return {"temperature": 0, "ignore_eos": self._ignore_eos}

    async def ask(self, prompt: str, max_tokens: int) -> Reply:
        """Streams the answer to `prompt`. Raises RequestRefused, ModelNotFound or EndpointError."""
        try:
            return await self._ask(prompt, max_tokens)
        except RequestRefused as error:
            if not (self._ignore_eos and "ignore_eos" in str(error)):
                raise
            self._ignore_eos = False
        return await self._ask(prompt, max_tokens)

    async def close(self) -> None:
        """Ends the connections."""
        await self._client.aclose()

    async def _ask(self, prompt: str, max_tokens: int) -> Reply:
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._ignore_eos:
            body["ignore_eos"] = True
        if self.kind == "chat":
            path, body["messages"] = "/chat/completions", [{"role": "user", "content": prompt}]
        else:
            path, body["prompt"] = "/completions", prompt
        reply = ReplyBuilder()
        content = msgspec.json.encode(body)
        started = time.perf_counter()
        try:
            async with self._client.stream(
                "POST", self.url + path, content=content, headers={"content-type": "application/json"}
            ) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise self._refusal(response)
                complete = False
                async for line in response.aiter_lines():
                    if not line.startswith(_DATA):
                        continue
                    data = line[len(_DATA) :].strip()
                    if data == _DONE:
                        complete = True
                        break
                    complete |= self._take(reply, data, time.perf_counter() - started)
        except httpx2.HTTPError as error:
            raise self._broken(reply, max_tokens, error) from error
        if not complete:
            raise self._broken(reply, max_tokens, None)
        return reply.build(time.perf_counter() - started)

    def _take(self, reply: ReplyBuilder, data: str, now: float) -> bool:
        """Takes in one event; True when it says that the answer is at its end."""
        try:
            event = msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise EndpointError(f"{self.url}: an event of the stream is not JSON: {data[:200]}") from error
        if "error" in event:
            raise RequestRefused(f"{self.url}: {_message(event)}")
        finished = False
        for choice in event.get("choices") or ():
            reply.add_text(_text(choice), now)
            finished |= choice.get("finish_reason") is not None
        if usage := event.get("usage"):
            reply.input_tokens = usage.get("prompt_tokens")
            reply.output_tokens = usage.get("completion_tokens")
        return finished

    def _refusal(self, response: httpx2.Response) -> Exception:
        try:
            message = _message(msgspec.json.decode(response.content))
        except msgspec.DecodeError:
            message = response.text[:200].strip()
        text = f"{self.url}: {response.status_code} {message}"
        if response.status_code == 404:
            hint = "; a server without plain completions may have --protocol openai-chat"
            return ModelNotFound(text + (hint if self.kind == "completions" and self.model not in message else ""))
        return EndpointError(text) if response.status_code in (401, 403) else RequestRefused(text)

    def _broken(self, reply: ReplyBuilder, max_tokens: int, error: Exception | None) -> EndpointError:
        reason = "" if error is None else f": {_reason(error)}"
        if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
            return EndpointError(f"{self.url} cannot be reached{reason}")
        if isinstance(error, httpx2.UnsupportedProtocol):
            return EndpointError(f"{self.url} is not the URL of a server{reason}")
        where = f"after {len(reply.arrivals)} events of an answer of {max_tokens} tokens"
        return EndpointError(f"{self.url} broke the connection off {where}{reason}")


def base_url(url: str) -> str:
    """The URL that paths such as `/completions` are added to. Raises ConfigError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"--url {url}: a URL such as http://127.0.0.1:8080/v1 is expected")
    return url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")


def only_model(url: str, api_key: str | None = None) -> str:
    """The model that the server has, if it is one alone. Raises ConfigError with the names when it is not."""
    url = base_url(url)
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        response = httpx2.get(f"{url}/models", headers=headers, timeout=30)
        response.raise_for_status()
        names = [str(model["id"]) for model in msgspec.json.decode(response.content)["data"]]
    except httpx2.HTTPError as error:
        raise EndpointError(f"{url}/models cannot be read: {_reason(error)}") from error
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise EndpointError(f"{url}/models does not list models: name one with --model") from error
    if len(names) != 1:
        raise ConfigError(f"--model: name one of the models at {url}: {', '.join(names) or 'there are none'}")
    return names[0]


def _client(api_key: str | None, connections: int, timeout: float) -> httpx2.AsyncClient:
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx2.AsyncClient(headers=headers, limits=limits, timeout=timeout)


def _text(choice: Mapping[str, Any]) -> str:
    """What a choice of an event says: its text, its thoughts, or the arguments of a tool call."""
    if "text" in choice:
        return choice["text"] or ""
    delta = choice.get("delta") or {}
    thoughts = delta.get("reasoning_content") or delta.get("reasoning") or ""
    calls = "".join((call.get("function") or {}).get("arguments") or "" for call in delta.get("tool_calls") or ())
    return thoughts + (delta.get("content") or "") + calls


def _message(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error) if isinstance(error, dict) else error)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
