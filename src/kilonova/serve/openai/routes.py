"""The OpenAI API's routes, for raw paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from kilonova.serve.gateway import Gateway
from kilonova.serve.openai.chat import ChatCompletions
from kilonova.serve.openai.completions import Completions
from kilonova.serve.openai.errors import Handler, endpoint
from kilonova.serve.openai.images import FILES_PREFIX, Images
from kilonova.serve.openai.models import Models
from kilonova.serve.openai.responses import Responses
from kilonova.serve.openai.store import ResponseStore
from kilonova.serve.openai.tokens import Tokens

if TYPE_CHECKING:
    from kilonova.serve.database import Database


def routes(gateway: Gateway, database: Database | None = None) -> list[Route]:
    """Every route, at OpenAI's path and at Bedrock's, `/openai/v1`; responses are kept in `database`."""
    models = Models(gateway)
    responses = Responses(gateway, None if database is None else ResponseStore(database))
    tokens = Tokens(gateway)
    images = Images(gateway)
    kept = "/v1/responses/{response_id}"
    below_v1: list[tuple[str, str, str, Handler]] = [
        ("GET", "/v1/models", "models", models.list),
        ("GET", "/v1/models/{model_id:path}", "models", models.retrieve),
        ("POST", "/v1/embeddings", "embeddings", models.embeddings),
        ("POST", "/v1/chat/completions", "chat.completions", ChatCompletions(gateway).create),
        ("POST", "/v1/completions", "completions", Completions(gateway).create),
        ("POST", "/v1/responses", "responses", responses.create),
        ("POST", "/v1/responses/input_tokens", "responses", responses.count),
        ("POST", "/v1/images/generations", "images.generations", images.generate),
        ("POST", "/v1/images/edits", "images.edits", images.edit),
        ("POST", "/v1/images/variations", "images.variations", images.vary),
        ("GET", kept, "responses", responses.retrieve),
        ("DELETE", kept, "responses", responses.delete),
        ("GET", f"{kept}/input_items", "responses", responses.list_input_items),
        ("POST", f"{kept}/cancel", "responses", responses.cancel),
    ]
    table = [
        *below_v1,
        *((method, f"/openai{path}", operation, handler) for method, path, operation, handler in below_v1),
    ]
    for prefix in ("", "/v1"):
        table += [
            ("POST", f"{prefix}/tokenize", "tokenize", tokens.tokenize),
            ("POST", f"{prefix}/detokenize", "detokenize", tokens.detokenize),
            ("GET", f"{prefix}/tokenizer_info", "tokenizer_info", tokens.info),
        ]
    return [
        *(Route(path, endpoint(operation, handler), methods=[method]) for method, path, operation, handler in table),
        Route(f"{FILES_PREFIX}{{name}}", images.file, methods=["GET"]),
    ]
