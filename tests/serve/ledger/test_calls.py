"""What becomes of a call in the ledger, and of callers that reach their limits; with real clients."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import boto3
import openai
import pytest
import sqlalchemy as sa
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from tests.serve.conftest import ScriptedEngine, Server

from kilonova.core.errors import EngineError, Overloaded
from kilonova.core.types import Finished, PromptProcessed, TextDelta, Usage
from kilonova.serve.call import KeyLimits
from kilonova.serve.database import Database
from kilonova.serve.keys.authentication import Authenticator
from kilonova.serve.keys.master import FILE_NAME, MasterKey
from kilonova.serve.keys.store import KeyStore, Secrets
from kilonova.serve.ledger import writer
from kilonova.serve.ledger.ledger import Ledger
from kilonova.serve.ledger.tables import calls

MICRO = "amazon.nova-micro-v1:0"
HELLO = [{"role": "user", "content": [{"text": "hello"}]}]
HELLO_OPENAI = [{"role": "user", "content": "hello"}]
USAGE = Usage(20, 5, cache_read_input_tokens=8, cache_write_input_tokens=4)
# Dollars of a million: 0.035 in, 0.14 out, 0.00875 read from the cache, as much for writing to it as in.
PICODOLLARS = (20 - 8) * 35_000 + 8 * 8_750 + 5 * 140_000


def answer(request: Any) -> list[Any]:
    finished = Finished("end_turn", USAGE, time_to_first_token=0.01, latency=0.25)
    return [PromptProcessed(20), TextDelta("hello"), finished]


@dataclass
class Metered:
    """A server with a ledger and keys."""

    server: Server
    engine: ScriptedEngine
    database: Database
    store: KeyStore
    master: MasterKey

    def rows(self, count: int) -> list[Any]:
        """The ledger, oldest first, once `count` calls in it are over."""
        deadline = time.monotonic() + 10
        while True:
            with self.database.engine.connect() as connection:
                rows = connection.execute(sa.select(calls).order_by(calls.c.started_at)).all()
            if len(rows) >= count and all(row.status != "running" for row in rows):
                assert len(rows) == count, rows
                return rows
            assert time.monotonic() < deadline, rows
            time.sleep(0.02)

    def row(self) -> Any:
        """The only one."""
        return self.rows(1)[0]

    def key(self, name: str = "team", operations: list[str] | None = None, **limits: Any) -> Secrets:
        return self.store.create(self.master, name, operations=operations, limits=KeyLimits(**limits))[1]

    def boto3(self, secrets: Secrets) -> Any:
        return boto3.client(
            "bedrock-runtime",
            endpoint_url=self.server.url,
            region_name="us-east-1",
            aws_access_key_id=secrets.access_key_id,
            aws_secret_access_key=secrets.secret_access_key,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def openai(self, secrets: Secrets) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.server.url}/v1", api_key=secrets.openai_key, max_retries=0)


@pytest.fixture
def metered(
    sqlite_database: Database, tmp_path: Any, play: Callable[..., tuple[Server, ScriptedEngine]]
) -> Iterator[Callable[..., Metered]]:
    authenticators = []

    def start(script: Callable[..., Any] = answer) -> Metered:
        store, master = KeyStore(sqlite_database), MasterKey.open(tmp_path / FILE_NAME)
        authenticator = Authenticator(store, master, open_without_keys=True)
        authenticators.append(authenticator)
        server, engine = play(
            script, database=sqlite_database, ledger=Ledger(sqlite_database), authenticator=authenticator
        )
        return Metered(server, engine, sqlite_database, store, master)

    yield start
    for authenticator in authenticators:
        authenticator.close()


def test_a_finished_call(metered: Callable[..., Metered]) -> None:
    each = metered()
    before = time.time()
    response = each.server.boto3("bedrock-runtime").converse(
        modelId=MICRO, messages=HELLO, requestMetadata={"team": "search"}
    )
    row = each.row()
    assert row.id == response["ResponseMetadata"]["RequestId"]
    assert before - 1 < row.started_at / 1000 < time.time()
    assert (row.protocol, row.operation, row.model) == ("bedrock", "Converse", "micro")
    assert (row.status, row.http_status, row.error, row.stop_reason) == ("finished", 200, "", "end_turn")
    assert (row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cache_write_tokens) == (8, 5, 8, 4)
    assert (row.key_id, row.key_name, row.service_tier) == ("", "", "default")
    assert row.request_metadata == {"team": "search"}
    assert row.price == PICODOLLARS
    assert row.price_entry == "amazon.nova-micro-v1:0@nova-us-2026-07-09"
    assert 0 < row.latency < 10


def test_choices_share_the_price_of_their_prompt(metered: Callable[..., Metered]) -> None:
    each = metered()
    usage = each.server.openai.chat.completions.create(model="micro", messages=HELLO_OPENAI, n=3).usage
    row = each.row()
    assert (usage.prompt_tokens, usage.completion_tokens) == (20, 15)
    assert (row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cache_write_tokens) == (8, 15, 8, 4)
    assert row.price == PICODOLLARS + 2 * 5 * 140_000


@pytest.mark.parametrize(("tier", "factor"), [("priority", Decimal("1.75")), ("flex", Decimal("0.5"))])
def test_the_price_of_a_tier(metered: Callable[..., Metered], tier: str, factor: Decimal) -> None:
    each = metered()
    client = each.server.boto3("bedrock-runtime")
    client.converse(modelId=MICRO, messages=HELLO, serviceTier={"type": tier})
    row = each.row()
    assert row.service_tier == tier
    assert row.price == PICODOLLARS * factor


def test_every_inference_operation_is_recorded_and_nothing_else(metered: Callable[..., Metered]) -> None:
    each = metered()
    bedrock, client = each.server.boto3("bedrock-runtime"), each.server.openai
    body = b'{"messages": [{"role": "user", "content": [{"text": "hello"}]}]}'
    for _ in bedrock.converse_stream(modelId=MICRO, messages=HELLO)["stream"]:
        pass
    bedrock.invoke_model(modelId=MICRO, body=body)
    for _ in bedrock.invoke_model_with_response_stream(modelId=MICRO, body=body)["body"]:
        pass
    client.chat.completions.create(model="micro", messages=HELLO_OPENAI)
    for _ in client.chat.completions.create(model="micro", messages=HELLO_OPENAI, stream=True):
        pass
    client.completions.create(model="micro", prompt="hello")
    expected = ["ConverseStream", "InvokeModel", "InvokeModelWithResponseStream"]
    expected += ["chat.completions", "chat.completions", "completions"]
    # None of these.
    each.server.health()
    client.models.list()
    bedrock.count_tokens(modelId=MICRO, input={"converse": {"messages": HELLO}})
    each.server.boto3("bedrock").list_foundation_models()
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("unknown")
    rows = each.rows(len(expected))
    assert [row.operation for row in rows] == expected
    assert {(row.status, row.price) for row in rows} == {("finished", PICODOLLARS)}


def test_refused_calls(metered: Callable[..., Metered]) -> None:
    each = metered()
    client = each.server.boto3("bedrock-runtime")
    with pytest.raises(ClientError):
        client.converse(modelId="unknown", messages=HELLO)
    with pytest.raises(ClientError):
        client.converse(modelId=MICRO, messages=[])
    with pytest.raises(openai.NotFoundError):
        each.server.openai.chat.completions.create(model="unknown", messages=HELLO_OPENAI)
    each.rows(3)
    scoped = each.key(operations=["ConverseStream"])
    time.sleep(1.5)  # Until the server knows that there are keys.
    with pytest.raises(ClientError):
        each.boto3(scoped).converse(modelId=MICRO, messages=HELLO)
    with pytest.raises(openai.AuthenticationError):
        each.server.openai.chat.completions.create(model="micro", messages=HELLO_OPENAI)  # Nobody's: not recorded.
    rows = each.rows(4)
    assert rows[-1].key_id == scoped.access_key_id
    outcomes = [(row.status, row.http_status, row.error, row.price) for row in rows]
    assert outcomes == [
        ("refused", 400, "ValidationException", 0),
        ("refused", 400, "ValidationException", 0),
        ("refused", 404, "model_not_found", 0),
        ("refused", 403, "AccessDeniedException", 0),
    ]
    assert each.engine.requests == []


def test_a_call_that_finds_no_place(metered: Callable[..., Metered]) -> None:
    each = metered(lambda request: [Overloaded("the queue is full")])
    with pytest.raises(ClientError) as raised:
        each.server.boto3("bedrock-runtime").converse(modelId=MICRO, messages=HELLO)
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    row = each.row()
    assert (row.status, row.http_status, row.error) == ("refused", 429, "ThrottlingException")
    assert (row.input_tokens, row.price) == (0, 0)


def test_failed_calls(metered: Callable[..., Metered]) -> None:
    each = metered(lambda request: [0.01, EngineError("the step failed")])
    with pytest.raises(ClientError):
        each.server.boto3("bedrock-runtime").converse(modelId=MICRO, messages=HELLO)
    with pytest.raises(openai.InternalServerError):
        each.server.openai.chat.completions.create(model="micro", messages=HELLO_OPENAI)
    outcomes = [(row.status, row.http_status, row.error) for row in each.rows(2)]
    assert outcomes == [("failed", 424, "ModelErrorException"), ("failed", 500, "server_error")]


def test_calls_that_fail_in_their_stream(metered: Callable[..., Metered]) -> None:
    each = metered(lambda request: [PromptProcessed(7), TextDelta("some"), EngineError("the step failed")])
    client = each.server.boto3("bedrock-runtime")
    with pytest.raises(EventStreamError):
        list(client.converse_stream(modelId=MICRO, messages=HELLO)["stream"])
    with pytest.raises(openai.APIError):
        list(each.server.openai.chat.completions.create(model="micro", messages=HELLO_OPENAI, stream=True))
    rows = each.rows(2)
    assert [(row.status, row.http_status) for row in rows] == [("failed", 200)] * 2
    assert all(row.error for row in rows)
    assert [row.input_tokens for row in rows] == [7, 7]


@pytest.mark.parametrize("path", ["converse-stream", "converse"])
def test_a_client_that_goes(metered: Callable[..., Metered], path: str) -> None:
    each = metered(lambda request: [PromptProcessed(7), TextDelta("some"), 30.0])
    host, port = each.server.url.removeprefix("http://").split(":")
    body = b'{"messages": [{"role": "user", "content": [{"text": "hello"}]}]}'
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /model/{MICRO}/{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        deadline = time.monotonic() + 10
        while not each.engine.running:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if path == "converse-stream":
            assert b"200 OK" in connection.recv(100)
    row = each.row()
    assert (row.status, row.error, row.stop_reason) == ("cancelled", "", "")
    assert row.http_status == (200 if path == "converse-stream" else 499)
    assert (row.input_tokens, row.price) == (7, 7 * 35_000)


def test_without_a_row_there_is_no_generation(metered: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "OPEN_SECONDS", 0.3)
    each = metered()
    other = sqlite3.connect(each.database.url.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ClientError) as raised:
        each.server.boto3("bedrock-runtime").converse(modelId=MICRO, messages=HELLO)
    with pytest.raises(openai.InternalServerError) as openai_raised:
        each.server.openai.chat.completions.create(model="micro", messages=HELLO_OPENAI)
    assert each.server.health()["status"]
    other.execute("COMMIT")
    other.close()
    assert raised.value.response["Error"]["Code"] == "ServiceUnavailableException"
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert openai_raised.value.status_code == 503
    assert each.engine.requests == []
    assert [(row.status, row.http_status) for row in each.rows(2)] == [("failed", 503)] * 2
    each.server.boto3("bedrock-runtime").converse(modelId=MICRO, messages=HELLO)
    assert each.rows(3)[-1].status == "finished"


def test_requests_a_minute(metered: Callable[..., Metered]) -> None:
    each = metered()
    secrets = each.key(requests_per_minute=3, tokens_per_minute=100_000)
    bedrock, client = each.boto3(secrets), each.openai(secrets)
    bedrock.converse(modelId=MICRO, messages=HELLO)
    for remaining in ("1", "0"):
        response = client.chat.completions.with_raw_response.create(model="micro", messages=HELLO_OPENAI, max_tokens=10)
        assert response.headers["x-ratelimit-limit-requests"] == "3"
        assert response.headers["x-ratelimit-remaining-requests"] == remaining
        assert response.headers["x-ratelimit-limit-tokens"] == "100000"
        assert int(response.headers["x-ratelimit-remaining-tokens"]) < 100_000
        assert response.headers["x-ratelimit-reset-requests"].endswith("s")
    with pytest.raises(ClientError) as raised:
        bedrock.converse(modelId=MICRO, messages=HELLO)
    assert raised.value.response["Error"]["Code"] == "ThrottlingException"
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert 0 < int(raised.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) <= 60
    with pytest.raises(openai.RateLimitError) as openai_raised:
        client.chat.completions.create(model="micro", messages=HELLO_OPENAI)
    assert openai_raised.value.code == "rate_limit_exceeded"
    assert 0 < int(openai_raised.value.response.headers["retry-after"]) <= 60
    assert openai_raised.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    rows = each.rows(5)
    assert [row.status for row in rows] == ["finished"] * 3 + ["refused"] * 2
    assert {(row.key_id, row.key_name) for row in rows} == {(secrets.access_key_id, "team")}


def test_tokens_are_reserved_until_the_call_ends(metered: Callable[..., Metered]) -> None:
    each = metered()
    bedrock = each.boto3(each.key(tokens_per_minute=120))
    # The prompt has 7 tokens, by the engine's count; a finished call used 25.
    for _ in range(4):
        bedrock.converse(modelId=MICRO, messages=HELLO, inferenceConfig={"maxTokens": 30})
        each.rows(len(each.engine.requests) // 2)
    with pytest.raises(ClientError, match=r"120 tokens a minute\. 100 are used or reserved.*may need 37"):
        bedrock.converse(modelId=MICRO, messages=HELLO, inferenceConfig={"maxTokens": 30})
    bedrock.converse(modelId=MICRO, messages=HELLO, inferenceConfig={"maxTokens": 13})


def test_a_budget_survives_a_restart(metered: Callable[..., Metered]) -> None:
    each = metered()
    # One call's price, and what the second may cost at most.
    most = PICODOLLARS + 7 * 35_000 + 10 * 140_000
    secrets = each.key(budget_usd=Decimal(most) / 10**12, budget_period="total")
    arguments: dict[str, Any] = {"messages": HELLO, "inferenceConfig": {"maxTokens": 10}, "modelId": MICRO}
    each.boto3(secrets).converse(**arguments)
    each.rows(1)
    again = metered()
    again.boto3(secrets).converse(**arguments)
    again.rows(2)
    with pytest.raises(ClientError, match="Budget reached") as raised:
        again.boto3(secrets).converse(**arguments)
    assert raised.value.response["Error"]["Code"] == "ThrottlingException"
    assert "retry-after" not in raised.value.response["ResponseMetadata"]["HTTPHeaders"]
    with pytest.raises(openai.RateLimitError) as openai_raised:
        again.openai(secrets).chat.completions.create(model="micro", messages=HELLO_OPENAI, max_tokens=10)
    assert openai_raised.value.code == "insufficient_quota"


def test_a_key_sees_its_own_usage(metered: Callable[..., Metered]) -> None:
    each = metered()
    mine, other, auditor = each.key("mine"), each.key("other"), each.key("auditor", operations=["usage.all"])
    scoped = each.key("scoped", operations=["Converse"])
    each.boto3(mine).converse(modelId=MICRO, messages=HELLO)
    for _ in range(2):
        each.boto3(other).converse(modelId=MICRO, messages=HELLO)
    each.rows(3)

    def usage(secrets: Secrets, query: str = "") -> dict[str, Any]:
        return each.openai(secrets).get(f"{each.server.url}/kilonova/usage{query}", cast_to=object)

    report = usage(mine, "?by=key&by=model")
    assert report["total"]["requests"] == 1
    (row,) = report["rows"]
    assert (row["key"], row["key_name"], row["model"]) == (mine.access_key_id, "mine", "micro")
    assert (row["input_tokens"], row["output_tokens"]) == (8, 5)
    assert Decimal(row["price_usd"]) == Decimal(PICODOLLARS) / 10**12
    assert usage(mine, "?key=other")["total"]["requests"] == 0
    assert usage(auditor)["total"]["requests"] == 3
    assert usage(auditor, "?key=other")["total"]["requests"] == 2
    with pytest.raises(openai.BadRequestError, match="day"):
        usage(auditor, "?by=dya")
    with pytest.raises(openai.PermissionDeniedError):
        usage(scoped)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=each.server.url, api_key="x").get(f"{each.server.url}/kilonova/usage", cast_to=object)
