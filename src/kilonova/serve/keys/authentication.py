"""Finds out whose a request is before anything else looks at it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from datetime import UTC, datetime
from pathlib import Path

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kilonova.core.errors import ConfigError
from kilonova.serve.bedrock.errors import BedrockError, error_response, to_bedrock_error
from kilonova.serve.call import ANYONE, Principal, call_of
from kilonova.serve.database import Database
from kilonova.serve.http import read_body
from kilonova.serve.keys.master import FILE_NAME, MasterKey
from kilonova.serve.keys.ring import KeyRing
from kilonova.serve.keys.sigv4 import (
    MISMATCH,
    Signature,
    SignatureError,
    SignedRequest,
    is_signed,
    read_signature,
    verify,
)
from kilonova.serve.keys.store import Key, KeyStore, digest
from kilonova.serve.openai.errors import OpenAIError, to_openai_error
from kilonova.serve.origins import refuse_foreign_pages

logger = logging.getLogger(__name__)

# What answers without a key: the state of the server, and the page that then asks for one.
PUBLIC_PATHS = frozenset({"/", "/favicon.ico", "/health", "/health/live", "/health/ready"})
# Pages, and pictures whose names nobody can guess.
PUBLIC_PREFIXES = ("/console/", "/kilonova/pictures/")
OPENAI_PATHS = ("/v1/", "/openai/", "/tokenize", "/detokenize", "/kilonova/")

# Hashing a body this long would hold up other clients.
_VERIFY_ON_A_THREAD_FROM = 1_000_000
# Bodies longer than this are not held in memory for a signature by a key that does not exist.
_MAX_STRANGERS_BODY_BYTES = 65_536
_MAX_DRAINED_BYTES = 100_000_000

SHORT_TERM_PREFIX = "bedrock-api-key-"
MAX_SHORT_TERM_SECONDS = 12 * 3600
_SHORT_TERM_VERSION = b"&Version=1"
_SHORT_TERM_HOST = b"bedrock.amazonaws.com"

INVALID_KEY = "Authentication failed: Please make sure your API Key is valid."


class Refused(Exception):
    """A request does not prove whose it is; `code` is the name of AWS's exception."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Authenticator:
    """Tells whose a request is by its bearer key or its signature.

    While the database has no key at all, anyone's requests are taken if `open_without_keys`, and nobody's otherwise.
    """

    def __init__(self, store: KeyStore, master: MasterKey, *, open_without_keys: bool) -> None:
        self.store = store
        self.master = master
        self.ring = KeyRing(store)
        self._open_without_keys = open_without_keys

    async def is_open(self) -> bool:
        """Whether any request is taken, without a key."""
        return self._open_without_keys and not (await self.ring.keys()).by_id

    async def authenticate(self, request: Request) -> tuple[Principal, bytes | None]:
        """Whose the request is, and its body where that had to be read. Raises Refused and AccessDenied."""
        if await self.is_open():
            refuse_foreign_pages(request)
            return ANYONE, None
        signed = _signed_request(request)
        if is_signed(signed):
            await self._refuse_strangers_bodies(request, signed)
            body = await read_body(request)
            return await self._by_signature(_signed_request(request, body)), body
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Refused("MissingAuthenticationTokenException", "Missing Authentication Token")
        if token.startswith(SHORT_TERM_PREFIX):
            return await self._by_signature(_short_term(token)), None
        return await self._by_bearer_key(token), None

    def close(self) -> None:
        """Write down when keys were used last."""
        self.ring.close()

    async def _refuse_strangers_bodies(self, request: Request, signed: SignedRequest) -> None:
        length = request.headers.get("content-length", "")
        if not ("transfer-encoding" in request.headers or int(length or 0) > _MAX_STRANGERS_BODY_BYTES):
            return
        if _read_signature(signed).access_key_id not in (await self.ring.keys()).by_id:
            raise _unrecognized()

    async def _by_bearer_key(self, token: str) -> Principal:
        key = (await self.ring.keys()).by_digest.get(digest(token))
        if key is None:
            raise Refused("UnrecognizedClientException", INVALID_KEY)
        return self._admit(key)

    async def _by_signature(self, request: SignedRequest) -> Principal:
        keys = await self.ring.keys()
        now = datetime.now(UTC)
        signature = _read_signature(request)
        # Every id has a secret, so that the way is the same, and takes as long, for those that nobody has.
        secret = self.master.secret_access_key(signature.access_key_id)
        key = keys.by_id.get(signature.access_key_id)
        try:
            if len(request.body) < _VERIFY_ON_A_THREAD_FROM:
                verify(request, signature, secret, now)
            else:
                await asyncio.to_thread(verify, request, signature, secret, now)
        except SignatureError as error:
            if error.message == MISMATCH and key is None:
                raise _unrecognized() from None
            raise Refused(error.code, error.message) from None
        if key is None:
            raise _unrecognized()
        return self._admit(key)

    def _admit(self, key: Key) -> Principal:
        state = key.state(datetime.now(UTC))
        if state != "active":
            raise Refused("AccessDeniedException", f"The key {'has expired' if state == 'expired' else 'is revoked'}.")
        self.ring.used(key)
        return key.principal


def open_authenticator(
    database: Database, data_dir: Path, host: str, *, reachable: bool, is_open: bool
) -> Authenticator:
    """The authenticator of a server that listens on `host`, with the master key in `data_dir`.

    Where other machines can reach it (`reachable`) there must be a key, unless it `is_open` on purpose. Raises
    ConfigError.
    """
    store = KeyStore(database)
    if reachable and not is_open and not store.exists():
        raise ConfigError(
            f"--host {host}: other machines can reach this address, and there is no key yet, so anyone there could use "
            "the server; make one with `kilonova keys create`, or add --open if that is what you want"
        )
    master = MasterKey.open(data_dir / FILE_NAME)
    others = [
        key.id for key in store.list() if key.state(datetime.now(UTC)) == "active" and key.master_key_id != master.id
    ]
    if others:
        logger.warning(
            "%d keys were made with another %s: their bearer keys work, their access key ids do not",
            len(others),
            FILE_NAME,
        )
    authenticator = Authenticator(store, master, open_without_keys=is_open or not reachable)
    authenticator.ring.refresh()
    return authenticator


class AuthenticationMiddleware:
    """Names the principal of every call but those of public paths, or answers the refusal in the protocol's way."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self.app = app
        self.authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_public(scope["path"]):
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        call = call_of(request)
        try:
            if call.failure is not None:
                raise call.failure
            call.principal, body = await self.authenticator.authenticate(request)
        except ClientDisconnect:
            return
        except Exception as error:
            # Clients read an answer once they have sent their whole body.
            with contextlib.suppress(Exception):
                await _drain(request)
            call.error, response = _answer(scope["path"], error)
            await response(scope, receive, send)
            return
        await self.app(scope, receive if body is None else _replay(body, receive), send)


def is_public(path: str) -> bool:
    """Whether a path answers without a key."""
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES)


async def _drain(request: Request) -> None:
    received = 0
    call = call_of(request)
    async with call.interruptible(call.receive_seconds):
        async for chunk in request.stream():
            received += len(chunk)
            if received > _MAX_DRAINED_BYTES:
                return


def _read_signature(request: SignedRequest) -> Signature:
    try:
        return read_signature(request)
    except SignatureError as error:
        raise Refused(error.code, error.message) from None


def _signed_request(request: Request, body: bytes = b"") -> SignedRequest:
    return SignedRequest(
        method=request.method,
        raw_path=request.scope["raw_path"],
        query=request.scope["query_string"],
        headers=request.scope["headers"],
        body=body,
    )


def _short_term(token: str) -> SignedRequest:
    """The request that a short-term key of Bedrock is: a presigned call that its owner's access key signed."""
    try:
        text = base64.b64decode(token.removeprefix(SHORT_TERM_PREFIX), validate=True)
    except ValueError:
        raise _unrecognized() from None
    url, _, query = text.partition(b"?")
    query = query.removesuffix(_SHORT_TERM_VERSION)
    parameters = dict(part.partition(b"=")[::2] for part in query.split(b"&"))
    expires = parameters.get(b"X-Amz-Expires", b"")
    if (
        url != _SHORT_TERM_HOST + b"/"
        or parameters.get(b"Action") != b"CallWithBearerToken"
        or not expires.isdigit()
        or int(expires[:9]) > MAX_SHORT_TERM_SECONDS
    ):
        raise _unrecognized()
    return SignedRequest(method="POST", raw_path=b"/", query=query, headers=((b"host", _SHORT_TERM_HOST),), body=b"")


def _unrecognized() -> Refused:
    return Refused("UnrecognizedClientException", "The security token included in the request is invalid.")


def _answer(path: str, error: Exception) -> tuple[str, Response]:
    """The error's name and its response, in the protocol that owns the path."""
    if path.startswith(OPENAI_PATHS):
        if isinstance(error, Refused):
            challenge = {"www-authenticate": "Bearer"}
            error = OpenAIError(401, error.message, "invalid_request_error", code="invalid_api_key", headers=challenge)
        answered = to_openai_error(error)
        return answered.name, answered.response()
    if isinstance(error, Refused):
        error = BedrockError(error.code, error.message)
    exception = to_bedrock_error(error)
    return exception.code, error_response(exception, {})


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the whole body once more before it goes on."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
