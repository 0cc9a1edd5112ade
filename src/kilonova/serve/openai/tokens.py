"""/tokenize, /detokenize and /tokenizer_info as vLLM shapes them, which evaluation reads to count its contexts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from kilonova.core.errors import InvalidRequest
from kilonova.serve.call import Call
from kilonova.serve.gateway import Gateway
from kilonova.serve.http import read_body
from kilonova.serve.openai.errors import decode
from kilonova.serve.openai.messages import to_conversation
from kilonova.serve.openai.requests import ChatMessage, TokenId
from kilonova.serve.openai.tools import ChatTool, to_tools

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry
    from kilonova.text.tokenizer import Tokenizer

MAX_TOKENS = 10_000_000


class TokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /tokenize: a raw prompt, as /v1/completions reads it, or a chat.

    No tokens are added to a prompt, whatever `add_special_tokens` says, as none are when it is completed.
    """

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    tools: list[ChatTool] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool | None = None


class DetokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /detokenize."""

    tokens: Annotated[list[TokenId], Meta(max_length=MAX_TOKENS)]
    model: str | None = None


_tokenize_decoder = msgspec.json.Decoder(TokenizeRequest)
_detokenize_decoder = msgspec.json.Decoder(DetokenizeRequest)


class Tokens:
    """The endpoints over the models of one server."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def tokenize(self, request: Request, call: Call) -> Response:
        """The token ids of a text."""
        body: TokenizeRequest = decode(_tokenize_decoder, await read_body(request))
        if (body.prompt is None) == (body.messages is None):
            raise InvalidRequest("Give either 'prompt' or 'messages'.", field="prompt")
        entry, tokenizer = await self._tokenizer(call, body.model)
        tokens = await asyncio.to_thread(_tokenize, body, entry, tokenizer)
        strings = _token_strings(tokenizer, tokens) if body.return_token_strs else None
        return _json(
            {"count": len(tokens), "max_model_len": entry.context_length, "tokens": tokens, "token_strs": strings}
        )

    async def detokenize(self, request: Request, call: Call) -> Response:
        """The text of token ids, control tokens spelled out."""
        body: DetokenizeRequest = decode(_detokenize_decoder, await read_body(request))
        _, tokenizer = await self._tokenizer(call, body.model)
        unknown = next((index for index, token in enumerate(body.tokens) if token >= tokenizer.vocab_size), None)
        if unknown is not None:
            raise InvalidRequest(f"Token ids go up to {tokenizer.vocab_size - 1}.", field=f"tokens.{unknown}")
        text = await asyncio.to_thread(tokenizer.decode, body.tokens, skip_special_tokens=False)
        return _json({"prompt": text})

    async def info(self, request: Request, call: Call) -> Response:
        """What the model's `tokenizer_config.json` says, its chat template, and its end of text."""
        entry, tokenizer = await self._tokenizer(call, request.query_params.get("model"))
        config = _config(self._whole(entry))
        special = {
            name: value["content"] if isinstance(value, dict) else value
            for name, value in config.items()
            if name.endswith("_token") and isinstance(value, (str, dict))
        }
        template = tokenizer.chat_template
        return _json(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": tokenizer.token_text(tokenizer.eos_token_id),
                **config,
                **special,
                "chat_template": None if template is None else template.source,
                "max_model_len": entry.context_length,
            }
        )

    async def _tokenizer(self, call: Call, name: str | None) -> tuple[ModelEntry, Tokenizer]:
        entry = self.gateway.resolve_text(call, self._only_name(call) if name is None else name)
        return entry, await self.gateway.tokenizer(entry)

    def _only_name(self, call: Call) -> str:
        """The model a request means that names none. Raises InvalidRequest unless all share a tokenizer."""
        entries = [entry for entry in self.gateway.entries(call) if not entry.makes_pictures]
        if len({_tokenizer_file(self._whole(entry)) for entry in entries}) != 1:
            names = ", ".join(entry.name for entry in entries)
            raise InvalidRequest(f"Name a 'model', as those here have tokenizers of their own: {names}.", field="model")
        return entries[0].name

    def _whole(self, entry: ModelEntry) -> ModelEntry:
        """The model itself of an adapter."""
        return self.gateway.models.resolve(entry.base) if entry.base else entry


def _tokenize(body: TokenizeRequest, entry: ModelEntry, tokenizer: Tokenizer) -> list[int]:
    if body.prompt is not None:
        return tokenizer.encode(body.prompt, allow_special=True)
    tools = to_tools(body.tools or ())
    messages = to_conversation(body.messages or (), tools, entry)
    open_ended = body.add_generation_prompt or body.continue_final_message
    return tokenizer.encode_chat(messages, tools, add_generation_prompt=open_ended)


def _token_strings(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    spelled = {token_id: token for token, token_id in tokenizer.vocabulary().items()}
    return [spelled[token] for token in tokens]


def _tokenizer_file(entry: ModelEntry) -> bytes:
    return (entry.directory / "tokenizer.json").read_bytes()


def _config(entry: ModelEntry) -> dict[str, Any]:
    path = entry.directory / "tokenizer_config.json"
    return msgspec.json.decode(path.read_bytes()) if path.exists() else {}


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
