"""Signatures that botocore's own signer makes are accepted; anything changed afterwards is not."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from kilonova.serve.keys import sigv4
from kilonova.serve.keys.sigv4 import Signature, SignatureError, SignedRequest, read_signature, verify

ID, SECRET = "AKKN234567ABCDEFGHIJ", "c2VjcmV0IGtleSBmb3IgdGVzdHMsIDQwIGNoYXJz"
ARN_PATH = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Famazon.nova-micro-v1%3A0/converse"
BODY = b'{"messages": [{"role": "user", "content": [{"text": "h\xc3\xa9llo"}]}]}'


def to_signed_request(signed: AWSRequest, body: bytes) -> SignedRequest:
    """What a server receives of a request that botocore has signed."""
    parts = urlsplit(signed.url)
    headers = {name.lower(): value for name, value in signed.headers.items()}
    headers.setdefault("host", parts.netloc)
    return SignedRequest(
        method=signed.method,
        raw_path=parts.path.encode(),
        query=parts.query.encode(),
        headers=tuple((name.encode(), str(value).encode()) for name, value in headers.items()),
        body=body,
    )


def header_signed(
    path: str = ARN_PATH,
    *,
    method: str = "POST",
    body: bytes = BODY,
    token: str | None = None,
    service: str = "bedrock",
) -> SignedRequest:
    headers = {"Content-Type": "application/json", "X-Amzn-Bedrock-Trace": "ENABLED", "X-Twice": "  a   b "}
    request = AWSRequest(method=method, url=f"http://127.0.0.1:8080{path}", data=body, headers=headers)
    SigV4Auth(Credentials(ID, SECRET, token), service, "eu-west-3").add_auth(request)
    return to_signed_request(request, body)


def presigned(path: str = "/foundation-models?byProvider=A%20b", *, expires: int = 900) -> SignedRequest:
    request = AWSRequest(method="GET", url=f"https://models.example:8443{path}")
    SigV4QueryAuth(Credentials(ID, SECRET), "bedrock", "us-east-1", expires=expires).add_auth(request)
    return to_signed_request(request, b"")


def check(request: SignedRequest, secret: str = SECRET, after: timedelta = timedelta()) -> Signature:
    signature = read_signature(request)
    verify(request, signature, secret, datetime.now(UTC) + after)
    return signature


def with_header(request: SignedRequest, name: str, value: str | None) -> SignedRequest:
    """The request with a header changed, added, or (None) left out."""
    headers = [pair for pair in request.headers if pair[0] != name.encode()]
    headers += [] if value is None else [(name.encode(), value.encode())]
    return dataclasses.replace(request, headers=tuple(headers))


@pytest.mark.parametrize(
    "path",
    [
        ARN_PATH,
        "/model/us.amazon.nova-lite-v1%3A0/converse",
        "/model/us.amazon.nova-lite-v1:0/converse",
        "/model/a%20b%25c%2Fd~e_f/invoke",
        "/foundation-models?byProvider=A%20b%2Bc&byOutputModality=TEXT",
        "/foundation-models?b=2&a=1&b=1&empty=",
        "/",
    ],
)
def test_what_botocore_signs_is_accepted(path: str) -> None:
    for method, body in (("POST", BODY), ("GET", b"")):
        assert check(header_signed(path, method=method, body=body)).access_key_id == ID


@pytest.mark.parametrize("path", ["/foundation-models?byProvider=A%20b", ARN_PATH, "/"])
def test_what_botocore_presigns_is_accepted(path: str) -> None:
    assert check(presigned(path)).expires == 900


def test_a_path_that_is_encoded_once_is_accepted_where_it_means_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SigV4Auth, "_normalize_url_path", lambda self, path: path)
    check(header_signed(ARN_PATH))
    with pytest.raises(SignatureError):
        check(header_signed("/model/a%253Ab/converse"))


CHANGES: dict[str, Callable[[SignedRequest], SignedRequest]] = {
    "method": lambda r: dataclasses.replace(r, method="PUT"),
    "body": lambda r: dataclasses.replace(r, body=r.body + b" "),
    "empty body": lambda r: dataclasses.replace(r, body=b""),
    "path": lambda r: dataclasses.replace(r, raw_path=r.raw_path.replace(b"micro", b"macro")),
    "path's end": lambda r: dataclasses.replace(r, raw_path=r.raw_path + b"-stream"),
    "doubled slash": lambda r: dataclasses.replace(r, raw_path=b"/" + r.raw_path),
    "dot segment": lambda r: dataclasses.replace(r, raw_path=b"/." + r.raw_path),
    "decoded slash": lambda r: dataclasses.replace(r, raw_path=r.raw_path.replace(b"%2F", b"/")),
    "encoded per cent": lambda r: dataclasses.replace(r, raw_path=r.raw_path.replace(b"%3A", b"%253A")),
    "query": lambda r: dataclasses.replace(r, query=b"a=1"),
    "date": lambda r: with_header(r, "x-amz-date", datetime.now(UTC).strftime("%Y%m%dT000001Z")),
    "host": lambda r: with_header(r, "host", "elsewhere:8080"),
    "content type": lambda r: with_header(r, "content-type", "text/plain"),
    "signed header": lambda r: with_header(r, "x-amzn-bedrock-trace", "DISABLED"),
    "missing header": lambda r: with_header(r, "x-twice", None),
    "repeated header": lambda r: dataclasses.replace(r, headers=(*r.headers, (b"x-twice", b"c"))),
    "added service header": lambda r: with_header(r, "x-amzn-bedrock-guardrailidentifier", "none"),
    "added x-amz header": lambda r: with_header(r, "x-amz-target", "Other"),
    "hash of another body": lambda r: with_header(r, "x-amz-content-sha256", "0" * 64),
    "unsigned payload": lambda r: with_header(r, "x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_request_is_refused(change: str) -> None:
    request = header_signed()
    changed = CHANGES[change](request)
    assert changed != request
    with pytest.raises(SignatureError) as caught:
        check(changed)
    assert caught.value.code == "InvalidSignatureException"


def test_a_body_that_was_declared_unsigned_is_refused() -> None:
    request = AWSRequest(method="POST", url=f"https://h{ARN_PATH}", data=BODY)
    request.headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
    SigV4Auth(Credentials(ID, SECRET), "bedrock", "us-east-1").add_auth(request)
    with pytest.raises(SignatureError):
        check(to_signed_request(request, BODY))
    request = AWSRequest(method="POST", url=f"https://h{ARN_PATH}", data=BODY)
    request.context["payload_signing_enabled"] = False
    SigV4Auth(Credentials(ID, SECRET), "bedrock", "us-east-1").add_auth(request)
    with pytest.raises(SignatureError):
        check(to_signed_request(request, BODY))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"byProvider=A%20b", b"byProvider=Ab"),
        (b"byProvider=A%20b", b"byProvider=A%2Bb"),
        (b"byProvider=A%20b", b"byProvider=A%20b&byProvider=C"),
        (b"X-Amz-Expires=900", b"X-Amz-Expires=9000"),
        (b"us-east-1", b"us-east-2"),
        (ID.encode(), b"AKKN234567ABCDEFGHIK"),
    ],
)
def test_a_changed_presigned_query_is_refused(old: bytes, new: bytes) -> None:
    request = presigned()
    changed = dataclasses.replace(request, query=request.query.replace(old, new))
    assert changed != request
    with pytest.raises(SignatureError) as caught:
        check(changed)
    assert caught.value.message == sigv4.MISMATCH


def test_a_thousand_mutated_signatures_fail() -> None:
    request = header_signed()
    signature = read_signature(request)
    draw = random.Random(0)
    digits = "0123456789abcdef"
    tried = set()
    while len(tried) < 1000:
        characters = list(signature.signature)
        for position in draw.sample(range(64), draw.choice([1, 1, 1, 2, 8])):
            characters[position] = draw.choice(digits)
        mutated = "".join(characters)
        if draw.random() < 0.1:
            mutated = draw.choice([mutated[:-1], mutated + "0", mutated.upper(), "é" + mutated[1:]])
        if mutated == signature.signature or mutated in tried:
            continue
        tried.add(mutated)
        with pytest.raises(SignatureError, match="does not match"):
            verify(request, dataclasses.replace(signature, signature=mutated), SECRET, datetime.now(UTC))
    verify(request, signature, SECRET, datetime.now(UTC))


def test_the_secret_decides() -> None:
    with pytest.raises(SignatureError, match="does not match"):
        check(header_signed(), secret=SECRET[:-1] + "T")


@pytest.mark.parametrize("seconds", [-299, 299])
def test_clocks_may_differ_by_five_minutes(seconds: int) -> None:
    check(header_signed(), after=timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("request_", "seconds", "message"),
    [
        (header_signed, 302, r"Signature expired: \d{8}T\d{6}Z is now earlier than \d{8}T\d{6}Z \(.* - 5 min\.\)"),
        (header_signed, -303, r"Signature not yet current: .* \+ 5 min\.\)"),
        (presigned, 902, r"Signature expired: .* - 15 min\.\)"),
        (presigned, -303, "Signature not yet current"),
    ],
)
def test_signatures_are_of_their_time(request_: Callable[[], SignedRequest], seconds: int, message: str) -> None:
    with pytest.raises(SignatureError, match=message) as caught:
        check(request_(), after=timedelta(seconds=seconds))
    assert caught.value.code == "InvalidSignatureException"


def test_the_same_bytes_are_accepted_again_within_their_time() -> None:
    request = header_signed()
    check(request)
    check(request, after=timedelta(minutes=4))


def authorization(request: SignedRequest, old: str, new: str) -> SignedRequest:
    value = request.header(b"authorization")
    assert value is not None
    changed = value.decode().replace(old, new)
    assert changed != value.decode()
    return with_header(request, "authorization", changed)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("Signature=", "Sign=", "IncompleteSignatureException"),
        ("Credential=", "Cred=", "IncompleteSignatureException"),
        ("SignedHeaders=", "Signed=", "IncompleteSignatureException"),
        ("/aws4_request", "", "IncompleteSignatureException"),
        ("/aws4_request", "/aws5_request", "InvalidSignatureException"),
        ("/bedrock/", "/s3/", "InvalidSignatureException"),
        ("/eu-west-3/", "/EU west/", "IncompleteSignatureException"),
        (f"{ID}/", f"{ID}é/", "IncompleteSignatureException"),
        ("host;", "", "IncompleteSignatureException"),
        ("host;", "host;host;", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA512 ", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256", "IncompleteSignatureException"),
    ],
)
def test_malformed_signatures_are_refused(old: str, new: str, code: str) -> None:
    with pytest.raises(SignatureError) as caught:
        check(authorization(header_signed(), old, new))
    assert caught.value.code == code


def test_dates_that_disagree_or_are_none_are_refused() -> None:
    for date in ("20200102T030405Z", "yesterday", "20261399T000000Z", "", None):
        with pytest.raises(SignatureError) as caught:
            check(with_header(header_signed(), "x-amz-date", date))
        assert caught.value.code in ("InvalidSignatureException", "IncompleteSignatureException")


@pytest.mark.parametrize("expires", [0, -5, 604_801])
def test_presigned_requests_end(expires: int) -> None:
    with pytest.raises(SignatureError, match="X-Amz-Expires"):
        check(presigned(expires=expires))


def test_both_forms_at_once_are_refused() -> None:
    request = header_signed()
    with pytest.raises(SignatureError, match="not in both"):
        check(dataclasses.replace(request, query=presigned().query))


def test_session_tokens_belong_to_somebody_else() -> None:
    with pytest.raises(SignatureError) as caught:
        check(header_signed(token="session"))
    assert caught.value.code == "UnrecognizedClientException"


def test_another_service_cannot_be_signed_for() -> None:
    with pytest.raises(SignatureError, match="correct service: 'bedrock'"):
        check(header_signed(service="s3"))
