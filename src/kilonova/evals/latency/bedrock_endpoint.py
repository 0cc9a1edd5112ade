"""A model behind the Bedrock runtime protocol: ConverseStream through botocore."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from kilonova.core.errors import ConfigError, ModelNotFound
from kilonova.evals.latency.endpoint import EndpointError, Reply, ReplyBuilder, RequestRefused

_DEFAULT_REGION = "us-east-1"


class BedrockEndpoint:
    """A model at the URL of a Bedrock runtime endpoint.

    Region and credentials come from where AWS's tools look for them; a server elsewhere gets placeholders when there
    are none. `api_key` is sent as a bearer token in place of a signature. Answers are greedy; the protocol has no way
    to ask for more than the model wants to say. `timeout` is in seconds, for the connection and between two events.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        connections: int = 64,
        timeout: float = 300.0,
    ) -> None:
        self.url = url
        self.model = model
        self._client = _client(url, api_key, connections, timeout)
        # botocore is synchronous: each request under way has a thread of its own.
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="bedrock")

    @property
    def settings(self) -> Mapping[str, Any]:
        """What every request asks for."""
        return {"temperature": 0}

    async def ask(self, prompt: str, max_tokens: int) -> Reply:
        """Streams the answer to `prompt`. Raises RequestRefused, ModelNotFound or EndpointError."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, prompt, max_tokens)

    async def close(self) -> None:
        """Ends the connections; a request under way goes on to its end in its thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _ask(self, prompt: str, max_tokens: int) -> Reply:
        import urllib3
        from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

        reply = ReplyBuilder()
        complete = False
        started = time.perf_counter()
        try:
            response = self._client.converse_stream(
                modelId=self.model,
                messages=[{"role": "user", "content": [{"text": prompt}]}],
                inferenceConfig={"maxTokens": max_tokens, "temperature": 0},
            )
            for event in response["stream"]:
                now = time.perf_counter() - started
                if "contentBlockDelta" in event:
                    reply.add_text(_text(event["contentBlockDelta"]["delta"]), now)
                elif "metadata" in event:
                    usage = event["metadata"]["usage"]
                    reply.input_tokens, reply.output_tokens = usage["inputTokens"], usage["outputTokens"]
                    complete = True
        except ClientError as error:
            raise self._refusal(error) from error
        except EndpointConnectionError as error:
            raise EndpointError(f"{self.url} cannot be reached: {error}") from error
        except (BotoCoreError, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._broken(reply, max_tokens, f": {error}") from error
        if not complete:
            raise self._broken(reply, max_tokens, "")
        return reply.build(time.perf_counter() - started)

    def _refusal(self, error: Any) -> Exception:
        text = f"{self.url}: {error}"
        if error.response["Error"].get("Code") == "ResourceNotFoundException":
            return ModelNotFound(text)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return EndpointError(text) if status in (401, 403, 404) else RequestRefused(text)

    def _broken(self, reply: ReplyBuilder, max_tokens: int, reason: str) -> EndpointError:
        where = f"after {len(reply.arrivals)} events of an answer of {max_tokens} tokens"
        return EndpointError(f"{self.url} broke the connection off {where}{reason}")


def _client(url: str, api_key: str | None, connections: int, timeout: float) -> Any:
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from botocore.session import get_session

    config = Config(
        max_pool_connections=connections,
        connect_timeout=timeout,
        read_timeout=timeout,
        # A request that is tried again behind the client's back would be timed as a slow one.
        retries={"total_max_attempts": 1},
        signature_version=UNSIGNED if api_key else None,
    )
    try:
        session = get_session()
        options: dict[str, Any] = {"endpoint_url": url, "config": config}
        if not (urlsplit(url).hostname or "").endswith(".amazonaws.com"):
            if session.get_config_variable("region") is None:
                options["region_name"] = _DEFAULT_REGION
            if not api_key and session.get_credentials() is None:
                options |= {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
        client = session.create_client("bedrock-runtime", **options)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"bedrock: {error}") from error
    if api_key:

        def authorise(params: dict[str, Any], **_: Any) -> None:
            params["headers"]["Authorization"] = f"Bearer {api_key}"

        client.meta.events.register("before-call.bedrock-runtime", authorise)
    return client


def _text(delta: Mapping[str, Any]) -> str:
    """What an event says: its text, its thoughts, or the arguments of a tool call."""
    thoughts = (delta.get("reasoningContent") or {}).get("text") or ""
    return thoughts + (delta.get("text") or "") + ((delta.get("toolUse") or {}).get("input") or "")
