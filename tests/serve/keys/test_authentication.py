"""Whose a request is: every form of credentials, good and bad, in both protocols."""

from __future__ import annotations

import asyncio
import base64
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from sqlalchemy.exc import OperationalError

from kilonova.core.errors import ConfigError, Unavailable
from kilonova.serve.database import Database
from kilonova.serve.keys import authentication, ring
from kilonova.serve.keys.authentication import Authenticator, Refused, open_authenticator
from kilonova.serve.keys.master import MasterKey
from kilonova.serve.keys.sigv4 import SignedRequest
from kilonova.serve.keys.store import KeyStore, Secrets

from .conftest import Ask

CONVERSE = "/model/amazon.nova-micro-v1%3A0/converse"
BODY = b'{"messages": []}'


@pytest.fixture(autouse=True)
def _notice_changes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "MAX_AGE_SECONDS", -1.0)


@pytest.fixture
def secrets(store: KeyStore, master: MasterKey) -> Secrets:
    return store.create(master, "web")[1]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def signed(
    key_id: str, secret: str, path: str = CONVERSE, body: bytes = BODY, token: str | None = None
) -> dict[str, str]:
    request = AWSRequest(method="POST", url=f"http://127.0.0.1:8080{path}", data=body)
    SigV4Auth(Credentials(key_id, secret, token), "bedrock", "us-east-1").add_auth(request)
    return {"host": "127.0.0.1:8080", **dict(request.headers.items())}


def test_without_a_key_anyone_is_let_in_until_there_is_one(ask: Ask, store: KeyStore, master: MasterKey) -> None:
    for headers in ({}, bearer("anything"), signed("local", "local")):
        assert ask("POST", CONVERSE, headers, BODY).body == {"key_id": "", "name": "", "body": BODY.decode()}
    store.create(master, "web")
    for headers in ({}, bearer("anything"), signed("local", "local")):
        assert ask("POST", CONVERSE, headers, BODY).status == 403
    store.revoke("web")
    assert ask("POST", CONVERSE, {}, BODY).status == 403


def test_pages_of_other_sites_may_not_use_an_open_server(ask: Ask) -> None:
    for path in (CONVERSE, "/v1/chat/completions"):
        assert ask("POST", path, {"origin": "https://evil.example"}, BODY).status == 403
        assert ask("POST", path, {"origin": "http://localhost:3000"}, BODY).status == 200


def test_no_one_is_let_in_where_the_server_is_not_open(store: KeyStore, master: MasterKey) -> None:
    async def authenticate() -> bool:
        return await Authenticator(store, master, open_without_keys=False).is_open()

    assert not asyncio.run(authenticate())


@pytest.mark.parametrize("path", [CONVERSE, "/v1/chat/completions"])
def test_every_form_of_a_key_opens_every_protocol(ask: Ask, secrets: Secrets, path: str) -> None:
    headers = [
        bearer(secrets.bedrock_key),
        bearer(secrets.openai_key),
        {"authorization": f"bearer  {secrets.openai_key}"},
        signed(secrets.access_key_id, secrets.secret_access_key, path),
    ]
    for each in headers:
        answer = ask("POST", path, each, BODY)
        assert (answer.status, answer.body) == (
            200,
            {"key_id": secrets.access_key_id, "name": "web", "body": BODY.decode()},
        )


def test_a_presigned_url(ask: Ask, secrets: Secrets) -> None:
    request = AWSRequest(method="GET", url="http://127.0.0.1:8080/foundation-models?byProvider=Amazon")
    credentials = Credentials(secrets.access_key_id, secrets.secret_access_key)
    SigV4QueryAuth(credentials, "bedrock", "us-east-1", expires=60).add_auth(request)
    path = request.url.removeprefix("http://127.0.0.1:8080")
    assert ask("GET", path, {"host": "127.0.0.1:8080"}).body["name"] == "web"
    assert ask("GET", path.replace("Amazon", "Others"), {"host": "127.0.0.1:8080"}).code == "InvalidSignatureException"


def short_term_key(secrets: Secrets, *, expires: int = 3600, action: str = "CallWithBearerToken") -> str:
    """As the generator of tokens that AWS publishes makes them."""
    request = AWSRequest(
        method="POST",
        url="https://bedrock.amazonaws.com/",
        headers={"host": "bedrock.amazonaws.com"},
        params={"Action": action},
    )
    credentials = Credentials(secrets.access_key_id, secrets.secret_access_key)
    SigV4QueryAuth(credentials, "bedrock", "us-east-1", expires=expires).add_auth(request)
    text = request.url.removeprefix("https://") + "&Version=1"
    return "bedrock-api-key-" + base64.b64encode(text.encode()).decode()


def test_short_term_keys(ask: Ask, secrets: Secrets) -> None:
    assert ask("POST", CONVERSE, bearer(short_term_key(secrets)), BODY).body["name"] == "web"
    for wrong in (
        short_term_key(secrets, expires=43_201),
        short_term_key(secrets, action="Other"),
        short_term_key(secrets)[:-8],
        "bedrock-api-key-!",
        "bedrock-api-key-é",
    ):
        answer = ask("POST", CONVERSE, bearer(wrong), BODY)
        assert answer.status == 403
        assert answer.code in (
            "UnrecognizedClientException",
            "IncompleteSignatureException",
            "InvalidSignatureException",
        )


def test_refusals_say_what_the_services_say(ask: Ask, secrets: Secrets) -> None:
    good = signed(secrets.access_key_id, secrets.secret_access_key)
    late = {**good, "X-Amz-Date": (datetime.now(UTC) - timedelta(minutes=6)).strftime("%Y%m%dT%H%M%SZ")}
    cases = {
        "MissingAuthenticationTokenException": {},
        "UnrecognizedClientException": bearer(secrets.bedrock_key[:-1]),
        "InvalidSignatureException": {**good, "authorization": good["Authorization"][:-1] + "x"},
        "IncompleteSignatureException": {"authorization": "AWS4-HMAC-SHA256 Credential=x"},
    }
    cases["InvalidSignatureException"].pop("Authorization")
    for code, headers in cases.items():
        answer = ask("POST", CONVERSE, headers, BODY)
        assert (answer.status, answer.code, list(answer.body)) == (403, code, ["message"])
        assert "x-amzn-requestid" in answer.headers
        answer = ask("POST", "/v1/chat/completions", headers, BODY)
        assert (answer.status, answer.code) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert ask("POST", CONVERSE, late, BODY).code == "InvalidSignatureException"
    unknown = signed("AKKN2222222222222222", secrets.secret_access_key)
    answer = ask("POST", CONVERSE, unknown, BODY)
    assert (answer.code, answer.body["message"]) == (
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    )
    answer = ask("POST", CONVERSE, {"authorization": "Basic YTpi"}, BODY)
    assert answer.code == "MissingAuthenticationTokenException"
    answer = ask("POST", CONVERSE, signed(secrets.access_key_id, secrets.secret_access_key, token="t"), BODY)
    assert answer.code == "UnrecognizedClientException"


def test_refusals_do_not_repeat_what_was_sent(ask: Ask, secrets: Secrets) -> None:
    wrong = "sk-this-is-my-secret-for-something-else"
    for path in (CONVERSE, "/v1/models"):
        assert wrong not in str(ask("POST", path, bearer(wrong), BODY).body)


def test_another_body_is_refused(ask: Ask, secrets: Secrets) -> None:
    headers = signed(secrets.access_key_id, secrets.secret_access_key)
    assert ask("POST", CONVERSE, headers, BODY + b" ").code == "InvalidSignatureException"


def test_a_body_above_the_limit_is_refused(ask: Ask, secrets: Secrets) -> None:
    body = bytes(25_000_001)
    headers = signed(secrets.access_key_id, secrets.secret_access_key, body=body)
    assert ask("POST", CONVERSE, headers, body).code == "ValidationException"
    largest = body[:-1]
    headers = signed(secrets.access_key_id, secrets.secret_access_key, body=largest)
    assert ask("POST", CONVERSE, headers, largest).status == 200


def test_long_bodies_of_strangers_are_not_kept(ask: Ask, secrets: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("the body was read into memory")

    body = bytes(70_000)
    headers = signed("AKKN2222222222222222", "secret", body=body)
    monkeypatch.setattr(authentication, "read_body", fail)
    for length in ({"content-length": str(len(body))}, {"transfer-encoding": "chunked"}):
        assert ask("POST", CONVERSE, {**headers, **length}, body).code == "UnrecognizedClientException"


def test_expired_and_revoked_keys_are_denied(ask: Ask, store: KeyStore, master: MasterKey) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    expiring = store.create(master, "short", expires_at=soon)[1]
    assert ask("POST", CONVERSE, bearer(expiring.openai_key), BODY).status == 200
    time.sleep(0.6)
    revoked = store.create(master, "gone")[1]
    store.revoke("gone")
    for secrets, message in ((expiring, "expired"), (revoked, "revoked")):
        for headers in (
            bearer(secrets.bedrock_key),
            signed(secrets.access_key_id, secrets.secret_access_key),
            bearer(short_term_key(secrets)),
        ):
            answer = ask("POST", CONVERSE, headers, BODY)
            assert (answer.status, answer.code) == (403, "AccessDeniedException")
            assert message in answer.body["message"]
        # Who only knows its id learns nothing of it.
        assert ask("POST", CONVERSE, signed(secrets.access_key_id, "guess"), BODY).code == "InvalidSignatureException"


@pytest.mark.parametrize("path", ["/", "/health", "/health/live", "/health/ready", "/console/app.js"])
def test_pages_and_health_need_no_key(ask: Ask, secrets: Secrets, path: str) -> None:
    assert ask("GET", path).body["key_id"] == ""


@pytest.mark.parametrize(
    "path", ["/metrics", "/healthy", "//health", "/console", "/v1/health", "/Health", "/%2Fhealth"]
)
def test_everything_else_does(ask: Ask, secrets: Secrets, path: str) -> None:
    assert ask("GET", path).status in (401, 403)


def test_the_time_of_the_last_use_is_kept(
    ask: Ask, store: KeyStore, secrets: Secrets, authenticator: Authenticator
) -> None:
    before = datetime.now(UTC)
    ask("POST", CONVERSE, bearer(secrets.openai_key), BODY)
    authenticator.close()
    (key,) = store.list()
    assert key.last_used_at is not None
    assert before <= key.last_used_at <= datetime.now(UTC)


def test_changes_are_noticed_within_a_second(
    ask: Ask, store: KeyStore, master: MasterKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "MAX_AGE_SECONDS", 0.5)
    secrets = store.create(master, "first")[1]
    assert ask("POST", CONVERSE, bearer(secrets.openai_key), BODY).status == 200
    second = store.create(master, "second")[1]
    store.revoke("first")
    assert ask("POST", CONVERSE, bearer(second.openai_key), BODY).status == 403
    time.sleep(0.55)
    assert ask("POST", CONVERSE, bearer(second.openai_key), BODY).status == 200
    assert ask("POST", CONVERSE, bearer(secrets.openai_key), BODY).status == 403


def test_known_keys_hold_for_a_while_when_the_database_is_gone(
    ask: Ask, store: KeyStore, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask("POST", CONVERSE, bearer(secrets.openai_key), BODY).status == 200

    def fail() -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(store, "version", fail)
    assert ask("POST", CONVERSE, bearer(secrets.openai_key), BODY).status == 200
    assert ask("POST", CONVERSE, bearer("sk-other"), BODY).status == 403
    monkeypatch.setattr(ring, "MAX_STALE_SECONDS", -1.0)
    assert ask("POST", CONVERSE, bearer(secrets.openai_key), BODY).code == "ServiceUnavailableException"
    assert ask("POST", "/v1/models", bearer(secrets.openai_key), BODY).status == 503


def test_a_server_that_never_reached_its_database_lets_nobody_in(
    store: KeyStore, master: MasterKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(store, "version", fail)
    with pytest.raises(Unavailable):
        asyncio.run(Authenticator(store, master, open_without_keys=True).is_open())


def test_other_machines_need_a_key_to_exist(
    database: Database, store: KeyStore, master: MasterKey, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0.*kilonova keys create.*--open"):
        open_authenticator(database, tmp_path, "0.0.0.0", reachable=True, is_open=False)
    open_authenticator(database, tmp_path, "0.0.0.0", reachable=True, is_open=True)
    open_authenticator(database, tmp_path, "127.0.0.1", reachable=False, is_open=False)
    store.create(master, "web")
    open_authenticator(database, tmp_path, "0.0.0.0", reachable=True, is_open=False)


def test_keys_of_another_master_key_are_warned_of(
    database: Database, store: KeyStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.create(MasterKey(bytes(32)), "copied")
    caplog.set_level("WARNING", logger="kilonova")
    open_authenticator(database, tmp_path, "127.0.0.1", reachable=False, is_open=False)
    assert "another master.key" in caplog.text


def test_a_wrong_secret_takes_as_long_as_an_unknown_key(
    store: KeyStore, master: MasterKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [store.create(master, f"key {number}")[1].access_key_id for number in range(20)]
    unknown = ["AKKM" + identifier[4:] for identifier in known]
    authenticator = Authenticator(store, master, open_without_keys=False)
    authenticator.ring.refresh()
    requests = {
        identifier: SignedRequest(
            method="POST",
            raw_path=CONVERSE.encode(),
            query=b"",
            headers=[(k.lower().encode(), v.encode()) for k, v in signed(identifier, "wrong").items()],
            body=BODY,
        )
        for identifier in (*known, *unknown)
    }

    async def attempt(identifier: str) -> int:
        start = time.perf_counter_ns()
        with pytest.raises(Refused):
            await authenticator._by_signature(requests[identifier])
        return time.perf_counter_ns() - start

    async def measure() -> tuple[list[int], list[int]]:
        wrong, missing = [], []
        for _ in range(100):
            # One of each in turn, so that whatever else the machine does falls on both alike.
            for one, other in zip(known, unknown, strict=True):
                wrong.append(await attempt(one))
                missing.append(await attempt(other))
        return wrong, missing

    monkeypatch.setattr(ring, "MAX_AGE_SECONDS", 3600.0)
    wrong, missing = asyncio.run(measure())
    lower, middle, upper = statistics.quantiles(wrong, n=4)
    assert abs(middle - statistics.median(missing)) < max(upper - lower, 0.1 * middle)
