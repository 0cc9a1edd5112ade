"""AWS Signature Version 4, verified: the Authorization header's form and the presigned query's.

Source: AWS, "Create a signed AWS API request" and "Troubleshoot Signature Version 4 signing". A signature covers the
method, path, query, host, signed headers and body, and holds for five minutes around its time (a presigned one until it
expires). Within that window the same bytes are accepted again: the time is in whole seconds, so a client that asks the
same thing twice in one second signs the same, and a presigned URL is made to be used again. Who must not be able to
repeat what passes by must not be able to read it: that is what TLS is for.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote_to_bytes

SERVICE = "bedrock"
MAX_SKEW = timedelta(minutes=5)
MAX_PRESIGNED_SECONDS = 7 * 24 * 3600

_ALGORITHM = "AWS4-HMAC-SHA256"
_TERMINATOR = "aws4_request"
_TIME = "%Y%m%dT%H%M%SZ"
_TIME_PATTERN = re.compile(r"\d{8}T\d{6}Z")
_UNRESERVED = "-_.~"
# What names the caller or directs the service, and must not be added to a request on its way.
_PROTECTED_HEADERS = ("x-amz-", "x-amzn-bedrock-")

MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


class SignatureError(Exception):
    """A signature cannot be accepted; `code` is the name of AWS's exception."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """A request as it came: raw path and query, headers in order with lower-case names, whole body."""

    method: str
    raw_path: bytes
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The parts of a signature, none of them checked against a secret yet.

    `expires` is in seconds, for a presigned request only.
    """

    access_key_id: str
    date: str
    region: str
    signed_headers: tuple[str, ...]
    timestamp: str
    signature: str
    expires: int | None = None

    @property
    def scope(self) -> str:
        """What the signing key is derived for."""
        return f"{self.date}/{self.region}/{SERVICE}/{_TERMINATOR}"

    @property
    def time(self) -> datetime:
        """When it was made."""
        return datetime.strptime(self.timestamp, _TIME).replace(tzinfo=UTC)


def is_signed(request: SignedRequest) -> bool:
    """Whether a request carries a signature, in either form, that `read_signature` can try."""
    authorization = request.header(b"authorization") or b""
    return authorization.startswith(_ALGORITHM.encode()) or b"X-Amz-Signature=" in request.query


def read_signature(request: SignedRequest) -> Signature:
    """The signature of a request. Raises SignatureError for one that is incomplete or malformed."""
    authorization = request.header(b"authorization")
    if authorization is None:
        return _read_presigned(request)
    if b"X-Amz-Signature=" in request.query:
        raise _incomplete("a request is signed in its Authorization header or in its query, not in both")
    algorithm, _, rest = authorization.decode("latin-1").partition(" ")
    if algorithm != _ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': {_ALGORITHM} is expected.")
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    missing = [name for name in ("Credential", "Signature", "SignedHeaders") if not parts.get(name)]
    if missing:
        raise _incomplete(" ".join(f"Authorization header requires '{name}' parameter." for name in missing))
    timestamp = request.header(b"x-amz-date")
    if timestamp is None:
        raise _incomplete("Authorization header requires existence of an 'X-Amz-Date' header.")
    if request.header(b"x-amz-security-token") is not None:
        raise _unknown_token()
    return _signature(
        parts["Credential"], parts["SignedHeaders"], timestamp.decode("latin-1"), parts["Signature"], expires=None
    )


def verify(request: SignedRequest, signature: Signature, secret_access_key: str, now: datetime) -> None:
    """Raises SignatureError unless the secret's owner signed this very request, not too long before `now`."""
    signed = _matches(request, signature, secret_access_key)
    # Only after the signature: an answer about the time is for those who can sign.
    if not signed:
        raise SignatureError("InvalidSignatureException", MISMATCH)
    _check_time(signature, now)


def _read_presigned(request: SignedRequest) -> Signature:
    parameters = dict(_query_pairs(request.query))
    values = {name: parameters.get(f"X-Amz-{name}", "") for name in ("Algorithm", "Credential", "SignedHeaders")}
    values |= {name: parameters.get(f"X-Amz-{name}", "") for name in ("Date", "Expires", "Signature")}
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise _incomplete(" ".join(f"AWS query-string parameters must include 'X-Amz-{name}'." for name in missing))
    if values["Algorithm"] != _ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': {_ALGORITHM} is expected.")
    if "X-Amz-Security-Token" in parameters:
        raise _unknown_token()
    expires = values["Expires"]
    if not re.fullmatch(r"[0-9]{1,6}", expires) or not 1 <= int(expires) <= MAX_PRESIGNED_SECONDS:
        raise _incomplete(f"X-Amz-Expires must be a number of seconds between 1 and {MAX_PRESIGNED_SECONDS}")
    return _signature(
        values["Credential"], values["SignedHeaders"], values["Date"], values["Signature"], expires=int(expires)
    )


def _signature(
    credential: str, signed_headers: str, timestamp: str, signature: str, *, expires: int | None
) -> Signature:
    parts = credential.split("/")
    if len(parts) != 5:
        raise _incomplete(
            "Credential must have exactly 5 slash-delimited elements, such as keyid/date/region/service/term"
        )
    access_key_id, date, region, service, terminator = parts
    if not re.fullmatch(r"\w{1,128}", access_key_id, re.ASCII) or not re.fullmatch(r"[a-z0-9-]{1,64}", region):
        raise _incomplete("Credential holds an access key id, a date and a region of letters, digits and hyphens")
    if service != SERVICE:
        raise SignatureError(
            "InvalidSignatureException", f"Credential should be scoped to correct service: '{SERVICE}'."
        )
    if terminator != _TERMINATOR:
        raise SignatureError(
            "InvalidSignatureException", f"Credential should be scoped with a valid terminator: '{_TERMINATOR}'."
        )
    try:
        if not _TIME_PATTERN.fullmatch(timestamp):
            raise ValueError
        datetime.strptime(timestamp, _TIME)
    except ValueError:
        raise _incomplete("Date must be in ISO-8601 'basic format', such as 20260102T030405Z") from None
    if timestamp[:8] != date:
        raise SignatureError(
            "InvalidSignatureException",
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date.",
        )
    headers = tuple(signed_headers.split(";"))
    if "host" not in headers or list(headers) != sorted(set(headers)):
        raise _incomplete("SignedHeaders are lower-case names, sorted, each once, 'host' among them")
    return Signature(
        access_key_id=access_key_id,
        date=date,
        region=region,
        signed_headers=headers,
        timestamp=timestamp,
        signature=signature,
        expires=expires,
    )


def _matches(request: SignedRequest, signature: Signature, secret_access_key: str) -> bool:
    # Everything below is done for every secret, right or wrong, and compared in constant time.
    key = _signing_key(secret_access_key, signature)
    body_hash = hashlib.sha256(request.body).hexdigest()
    declared_hash = request.header(b"x-amz-content-sha256")
    whole = declared_hash is None or hmac.compare_digest(declared_hash, body_hash.encode())
    protected = {
        name.decode("latin-1") for name, _ in request.headers if name.decode("latin-1").startswith(_PROTECTED_HEADERS)
    }
    whole &= protected <= set(signature.signed_headers)
    for path in _canonical_paths(request.raw_path):
        to_sign = _string_to_sign(request, signature, path, body_hash)
        expected = hmac.digest(key, to_sign, hashlib.sha256).hex()
        if hmac.compare_digest(expected.encode(), signature.signature.encode("latin-1", "replace")) and whole:
            return True
    return False


def _signing_key(secret_access_key: str, signature: Signature) -> bytes:
    key = f"AWS4{secret_access_key}".encode()
    for part in (signature.date, signature.region, SERVICE, _TERMINATOR):
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    return key


def _canonical_paths(raw_path: bytes) -> list[str]:
    """The paths a client may have signed: its own encoded once more, as AWS wants it, or just its own.

    Some clients leave out the second encoding. A signature of theirs for `%3A` is one for `:` in AWS's way, which means
    the same model; a `%25` would mean another one, and is signed in AWS's way only.
    """
    path = raw_path.decode("latin-1")
    twice = quote(raw_path, safe="/" + _UNRESERVED)
    return [twice] if "%25" in path or path == twice else [twice, path]


def _query_pairs(query: bytes) -> Iterable[tuple[str, str]]:
    """Names and values, decoded as the application will decode them."""
    for part in query.replace(b"+", b" ").split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            yield unquote_to_bytes(name).decode("latin-1"), unquote_to_bytes(value).decode("latin-1")


def _canonical_query(query: bytes) -> str:
    pairs = [
        (quote(name, safe=_UNRESERVED, encoding="latin-1"), quote(value, safe=_UNRESERVED, encoding="latin-1"))
        for name, value in _query_pairs(query)
        if name != "X-Amz-Signature"
    ]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _string_to_sign(request: SignedRequest, signature: Signature, path: str, body_hash: str) -> bytes:
    names = [name.encode() for name in signature.signed_headers]
    values = {name: b",".join(b" ".join(v.split()) for k, v in request.headers if k == name) for name in names}
    canonical = b"\n".join(
        [
            request.method.encode(),
            path.encode("latin-1"),
            _canonical_query(request.query).encode(),
            *(name + b":" + values[name] for name in names),
            b"",
            b";".join(names),
            body_hash.encode(),
        ]
    )
    hashed = hashlib.sha256(canonical).hexdigest()
    return f"{_ALGORITHM}\n{signature.timestamp}\n{signature.scope}\n{hashed}".encode()


def _check_time(signature: Signature, now: datetime) -> None:
    then = signature.time
    lifetime = MAX_SKEW if signature.expires is None else timedelta(seconds=signature.expires)
    if now > then + lifetime:
        message = f"Signature expired: {_text(then)} is now earlier than {_text(now - lifetime)} ({_text(now)} - "
        raise SignatureError("InvalidSignatureException", f"{message}{lifetime.total_seconds() / 60:g} min.)")
    if then > now + MAX_SKEW:
        message = (
            f"Signature not yet current: {_text(then)} is still later than {_text(now + MAX_SKEW)} ({_text(now)} + "
        )
        raise SignatureError("InvalidSignatureException", f"{message}{MAX_SKEW.total_seconds() / 60:g} min.)")


def _text(time: datetime) -> str:
    return time.strftime(_TIME)


def _incomplete(message: str) -> SignatureError:
    return SignatureError("IncompleteSignatureException", message)


def _unknown_token() -> SignatureError:
    # Keys here have no session tokens: one that is sent belongs to somebody else's credentials.
    return SignatureError("UnrecognizedClientException", "The security token included in the request is invalid.")
