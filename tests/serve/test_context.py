"""Conversations that do not fit, through real clients of both protocols, with every strategy."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from openai import BadRequestError

from kilonova.core.types import (
    Finished,
    GenerationRequest,
    Message,
    PromptProcessed,
    TextBlock,
    TextDelta,
    Usage,
)
from kilonova.serve.context import HEADER, Summaries
from kilonova.text.context import max_summary_tokens
from kilonova.text.managed_conversation import ManagedConversation
from kilonova.text.summary import marked

from .conftest import Server, run_server

CONTEXT = 512
QUARTER = CONTEXT // 4
STRATEGIES = ("truncate_oldest", "sliding_window", "summarize")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("context")


@pytest.fixture(scope="module")
def own_server(directory: Path, tiny_micro_directory: Path) -> Iterator[Server]:
    with run_server(directory, "--model", f"tiny={tiny_micro_directory}") as running:
        yield running


def converse_turns(count: int, unique: str = "") -> list[dict[str, Any]]:
    turns = [
        {"role": role, "content": [{"text": f"{unique} turn {number}: the quick brown fox and a lazy dog"}]}
        for number in range(count)
        for role in ("user", "assistant")
    ]
    return [*turns, {"role": "user", "content": [{"text": "what did we say?"}]}]


def chat_turns(count: int, unique: str = "") -> list[dict[str, Any]]:
    turns = [{"role": m["role"], "content": m["content"][0]["text"]} for m in converse_turns(count, unique)]
    return [{"role": "system", "content": "Be brief."}, *turns]


def managed(strategy: str, **options: Any) -> dict[str, Any]:
    return {"contextManagement": {"strategy": strategy, **options}}


def read_row(directory: Path, call_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while True:
        with sqlite3.connect(directory / "data" / "kilonova.db") as connection:
            connection.row_factory = sqlite3.Row
            row = connection.execute("SELECT * FROM calls WHERE id = ?", (call_id,)).fetchone()
        if row is not None and row["status"] != "running":
            return dict(row)
        assert time.monotonic() < deadline, row
        time.sleep(0.05)


def parse_header(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split("; "))


def test_it_is_refused_by_default(own_server: Server) -> None:
    with pytest.raises(ClientError, match="Input is too long for requested model") as caught:
        own_server.boto3("bedrock-runtime").converse(modelId="tiny", messages=converse_turns(20))
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(BadRequestError) as refused:
        own_server.openai.chat.completions.create(model="tiny", messages=chat_turns(20))
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(BadRequestError):
        own_server.openai.chat.completions.create(
            model="tiny", messages=chat_turns(20), extra_body={"context_management": {"strategy": "none"}}
        )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_converse(own_server: Server, directory: Path, strategy: str) -> None:
    answer = own_server.boto3("bedrock-runtime").converse(
        modelId="tiny",
        messages=converse_turns(20, f"converse {strategy}"),
        system=[{"text": "Be brief."}],
        inferenceConfig={"maxTokens": 8},
        additionalModelRequestFields=managed(strategy),
        additionalModelResponseFieldPaths=["/contextManagement"],
    )
    report = answer["additionalModelResponseFields"]["contextManagement"]
    assert report["droppedMessages"] > 0
    assert report["droppedTokens"] > 100
    usage = answer["usage"]
    prompt = usage["totalTokens"] - usage["outputTokens"]
    assert prompt <= CONTEXT - QUARTER
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    header = parse_header(headers[HEADER])
    assert (header["strategy"], int(header["dropped_messages"])) == (report["strategy"], report["droppedMessages"])
    # A random model may write nothing, or what takes too many tokens to read; it is asked all the same.
    assert report["strategy"] == strategy or (strategy == "summarize" and report["note"])
    summary_usage = report.get("summaryUsage", {"inputTokens": 0, "outputTokens": 0})
    assert (summary_usage["inputTokens"] > 0) == (strategy == "summarize")
    row = read_row(directory, answer["ResponseMetadata"]["RequestId"])
    billed = row["input_tokens"] + row["cache_read_tokens"] + row["cache_write_tokens"]
    assert billed == prompt + summary_usage["inputTokens"]
    assert row["output_tokens"] == usage["outputTokens"] + summary_usage["outputTokens"]
    assert row["status"] == "finished"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_chat_completions(own_server: Server, directory: Path, strategy: str) -> None:
    raw = own_server.openai.chat.completions.with_raw_response.create(
        model="tiny",
        messages=chat_turns(20, f"chat {strategy}"),
        max_completion_tokens=200,
        n=2,
        extra_body={"context_management": {"strategy": strategy, "reserve": 64}},
    )
    answer = raw.parse()
    report = answer.context_management
    assert report["dropped_messages"] > 0
    # `max_completion_tokens` must fit, so it counts for more than the reserve.
    assert answer.usage.prompt_tokens <= CONTEXT - 200
    assert parse_header(raw.headers[HEADER])["dropped_tokens"] == str(report["dropped_tokens"])
    summary_usage = report.get("summary_usage", {"input_tokens": 0, "output_tokens": 0})
    assert (summary_usage["input_tokens"] > 0) == (strategy == "summarize")
    row = read_row(directory, raw.headers["x-request-id"])
    assert row["output_tokens"] == answer.usage.completion_tokens + summary_usage["output_tokens"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_streams(own_server: Server, strategy: str) -> None:
    answer = own_server.boto3("bedrock-runtime").converse_stream(
        modelId="tiny",
        messages=converse_turns(20, f"stream {strategy}"),
        inferenceConfig={"maxTokens": 8},
        additionalModelRequestFields=managed(strategy),
        additionalModelResponseFieldPaths=["/contextManagement/droppedMessages"],
    )
    events = list(answer["stream"])
    (stop,) = (event["messageStop"] for event in events if "messageStop" in event)
    assert stop["additionalModelResponseFields"]["contextManagement"]["droppedMessages"] > 0
    assert HEADER in answer["ResponseMetadata"]["HTTPHeaders"]
    with own_server.openai.chat.completions.with_streaming_response.create(
        model="tiny",
        messages=chat_turns(20, f"stream {strategy}"),
        max_tokens=8,
        stream=True,
        extra_body={"context_management": {"strategy": strategy}},
    ) as raw:
        assert int(parse_header(raw.headers[HEADER])["dropped_messages"]) > 0
        assert list(raw.parse())


def test_native_body_and_its_count(own_server: Server) -> None:
    runtime = own_server.boto3("bedrock-runtime")
    body = json.dumps(
        {
            "messages": converse_turns(20),
            "inferenceConfig": {"maxTokens": 8},
            "contextManagement": {"strategy": "sliding_window", "sinks": 2},
        }
    )
    answer = json.loads(runtime.invoke_model(modelId="tiny", body=body)["body"].read())
    assert answer["contextManagement"]["strategy"] == "sliding_window"
    counted = runtime.count_tokens(modelId="tiny", input={"invokeModel": {"body": body}})["inputTokens"]
    usage = answer["usage"]
    assert counted == usage["totalTokens"] - usage["outputTokens"] <= CONTEXT - QUARTER
    chunks = runtime.invoke_model_with_response_stream(modelId="tiny", body=body)["body"]
    last = json.loads(list(chunks)[-1]["chunk"]["bytes"])
    assert last["metadata"]["contextManagement"] == answer["contextManagement"]


def test_count_is_what_a_shortened_conversation_is_billed(own_server: Server) -> None:
    runtime = own_server.boto3("bedrock-runtime")
    asked = {"messages": converse_turns(20), "additionalModelRequestFields": managed("truncate_oldest")}
    counted = runtime.count_tokens(modelId="tiny", input={"converse": asked})["inputTokens"]
    usage = runtime.converse(modelId="tiny", inferenceConfig={"maxTokens": 8}, **asked)["usage"]
    assert counted == usage["totalTokens"] - usage["outputTokens"]


def test_what_fits_is_left_alone(own_server: Server) -> None:
    answer = own_server.boto3("bedrock-runtime").converse(
        modelId="tiny",
        messages=converse_turns(1),
        inferenceConfig={"maxTokens": 8},
        additionalModelRequestFields=managed("truncate_oldest"),
    )
    header = answer["ResponseMetadata"]["HTTPHeaders"][HEADER]
    assert header == "strategy=truncate_oldest; dropped_messages=0; dropped_tokens=0"


def test_newest_turn_alone_is_too_long(own_server: Server) -> None:
    with pytest.raises(ClientError, match=r"Input is too long.*the newest exchange"):
        own_server.boto3("bedrock-runtime").converse(
            modelId="tiny",
            messages=[{"role": "user", "content": [{"text": "word " * 600}]}],
            additionalModelRequestFields=managed("truncate_oldest"),
        )


def test_raw_prompts(own_server: Server) -> None:
    def complete(strategy: str, **options: Any) -> Any:
        return own_server.openai.completions.create(
            model="tiny",
            prompt=[list(range(10, 510)) * 2, "short"],
            max_tokens=8,
            extra_body={"context_management": {"strategy": strategy}},
            **options,
        )

    answer = complete("sliding_window")
    assert answer.context_management["dropped_tokens"] == 1000 - (CONTEXT - QUARTER)
    assert len(answer.choices) == 2
    assert complete("summarize").context_management["strategy"] == "truncate_oldest"
    with pytest.raises(BadRequestError, match="log-probabilities of a prompt"):
        complete("truncate_oldest", echo=True, logprobs=1)


def test_responses_and_their_truncation(own_server: Server) -> None:
    items = [{"role": m["role"], "content": m["content"]} for m in chat_turns(20)[1:]]
    with pytest.raises(BadRequestError):
        own_server.openai.responses.create(model="tiny", input=items, max_output_tokens=16)
    answer = own_server.openai.responses.create(model="tiny", input=items, max_output_tokens=16, truncation="auto")
    assert answer.truncation == "auto"
    assert answer.context_management["dropped_messages"] > 0
    answer = own_server.openai.responses.create(
        model="tiny",
        input=items,
        max_output_tokens=16,
        extra_body={"context_management": {"strategy": "sliding_window", "sinks": 1}},
    )
    assert answer.context_management["strategy"] == "sliding_window"
    with pytest.raises(BadRequestError, match="Compaction is not supported"):
        own_server.openai.responses.create(
            model="tiny", input="hi", extra_body={"context_management": [{"type": "compaction"}]}
        )


@pytest.mark.parametrize(
    ("value", "member"),
    [
        ({"strategy": "forget"}, "strategy"),
        ({}, "strategy"),
        ({"strategy": "sliding_window", "sinks": -1}, "sinks"),
        ({"strategy": "sliding_window", "sink": 1}, "sink"),
        ({"strategy": "truncate_oldest", "reserve": 512}, "reserve"),
        ("truncate_oldest", "context"),
    ],
)
def test_bad_values_are_named(own_server: Server, value: Any, member: str) -> None:
    with pytest.raises(ClientError, match=member) as caught:
        own_server.boto3("bedrock-runtime").converse(
            modelId="tiny", messages=converse_turns(1), additionalModelRequestFields={"contextManagement": value}
        )
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(BadRequestError, match=member):
        own_server.openai.chat.completions.create(
            model="tiny", messages=chat_turns(1), extra_body={"context_management": value}
        )


@pytest.mark.parametrize("strategy", ["truncate_oldest", "sliding_window"])
def test_client_that_shortens_by_itself(own_server: Server, strategy: Any) -> None:
    runtime = own_server.boto3("bedrock-runtime")
    system = [{"text": "Be brief."}]
    conversation = ManagedConversation.for_bedrock(runtime, "tiny", limit=300, strategy=strategy, system=system)
    conversation.add(*converse_turns(20))
    sent = conversation.fit()
    answer = runtime.converse(modelId="tiny", messages=sent, system=system, inferenceConfig={"maxTokens": 4})
    assert conversation.report.dropped_messages == 41 - len(sent) > 0
    assert 200 < answer["usage"]["totalTokens"] - answer["usage"]["outputTokens"] <= 300

    chat = ManagedConversation.for_openai(own_server.openai, "tiny", limit=300, strategy=strategy)
    chat.add(*chat_turns(20))
    usage = own_server.openai.chat.completions.create(model="tiny", messages=chat.fit(), max_tokens=4).usage
    assert usage.prompt_tokens == answer["usage"]["totalTokens"] - answer["usage"]["outputTokens"]


def play_summaries(play: Any, answer: Callable[[str], str]) -> tuple[Server, Any]:
    """A server whose model summarises as `answer` says, with a context of 512 and exact counts."""

    def script(request: Any) -> list[Any]:
        prompt = request.messages[-1].text
        text = answer(prompt) if prompt.startswith("Summarise the following") else "All of that."
        return [PromptProcessed(5), TextDelta(text), Finished("end_turn", Usage(50, 5))]

    server, engine = play(script)
    engine.context_length = CONTEXT
    engine.count_tokens = lambda request: len(engine.tokenizer.encode_chat(request.messages, request.tools))
    return server, engine


def test_summary_reaches_the_model_and_the_client(play: Any) -> None:
    server, engine = play_summaries(play, lambda prompt: " They spoke of foxes. ")
    answer = server.openai.chat.completions.create(
        model="micro", messages=chat_turns(12), extra_body={"context_management": {"strategy": "summarize"}}
    )
    *questions, asked = engine.requests
    assert questions
    for question in questions:
        assert question.sampling.max_tokens == max_summary_tokens(CONTEXT - QUARTER)
        assert question.sampling.temperature == 0
    assert "User:  turn 0: the quick brown fox" in questions[0].messages[0].text
    assert asked.messages[0].text == "Be brief."
    assert asked.messages[1].content[0] == TextBlock(marked("They spoke of foxes."))
    assert asked.messages[-1].text == "what did we say?"
    assert asked.context is None
    report = answer.context_management
    assert report["summary"] == "They spoke of foxes."
    assert report["summary_usage"] == {"input_tokens": 50 * len(questions), "output_tokens": 5 * len(questions)}
    assert answer.usage.prompt_tokens == 50


def test_a_summary_is_written_once_and_rolls_on(play: Any) -> None:
    server, engine = play_summaries(play, lambda prompt: "foxes")
    runtime = server.boto3("bedrock-runtime")
    messages = converse_turns(12)
    asked = []
    for _ in range(6):
        before = len(engine.requests)
        answer = runtime.converse(
            modelId="micro",
            messages=messages,
            additionalModelRequestFields=managed("summarize"),
            additionalModelResponseFieldPaths=["/contextManagement/summary"],
        )
        assert answer["additionalModelResponseFields"] == {"contextManagement": {"summary": "foxes"}}
        asked.append(len(engine.requests) - before - 1)
        messages += [answer["output"]["message"], {"role": "user", "content": [{"text": "and the dog " * 6}]}]
    assert asked[0] > 0
    assert asked[1] == 0
    assert 0 < sum(asked[1:]) <= 3
    last = [request for request in engine.requests if request.messages[-1].text.startswith("Summarise")][-1]
    assert "Summary of what came before: foxes" in last.messages[0].text
    assert "turn 0:" not in last.messages[0].text


def test_summaries_are_apart_for_each_caller_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kilonova.serve.context._MAX_SUMMARIES", 2)
    groups = [[Message("user", (TextBlock(text),))] for text in "abc"]
    summaries = Summaries()

    def of(tenant: str, model: str = "micro") -> Any:
        return summaries.of(GenerationRequest(model=model, tenant=tenant))

    of("ada").remember(groups[:2], "a and b")
    assert of("ada").recall(groups) == (2, "a and b")
    assert of("ada").recall(groups[1:]) == (0, "")
    assert of("bob").recall(groups) == of("ada", "lite").recall(groups) == (0, "")
    of("bob").remember(groups, "all")
    assert of("ada").recall(groups) == (2, "a and b")
    of("eve").remember(groups, "all")
    assert of("bob").recall(groups) == (0, "")
    assert of("ada").recall(groups) == (2, "a and b")


def test_calls_of_tools_keep_their_results(play: Any) -> None:
    server, engine = play_summaries(play, lambda prompt: "")
    tool = {"toolSpec": {"name": "clock", "description": "d", "inputSchema": {"json": {"type": "object"}}}}
    messages = [*converse_turns(2)[:-1], {"role": "user", "content": [{"text": "Look it up."}]}]
    for number in range(12):
        use = {"toolUseId": f"t{number}", "name": "clock", "input": {"zone": "UTC"}}
        result = {"toolUseId": f"t{number}", "content": [{"text": "noon"}]}
        messages += [
            {"role": "assistant", "content": [{"toolUse": use}]},
            {"role": "user", "content": [{"toolResult": result}]},
        ]
    server.boto3("bedrock-runtime").converse(
        modelId="micro",
        messages=messages,
        toolConfig={"tools": [tool]},
        additionalModelRequestFields=managed("truncate_oldest"),
    )
    opening, *steps = engine.requests[-1].messages
    assert opening.text == "Look it up."
    assert 2 <= len(steps) < 24
    for call, result in zip(steps[::2], steps[1::2], strict=True):
        assert call.content[0].id == result.content[0].tool_use_id
    assert steps[-1].content[0].tool_use_id == "t11"


def test_without_a_summary_the_oldest_go_and_it_is_said(play: Any) -> None:
    server, _ = play_summaries(play, lambda prompt: "")
    answer = server.openai.chat.completions.create(
        model="micro", messages=chat_turns(12), extra_body={"context_management": {"strategy": "summarize"}}
    )
    assert answer.context_management["strategy"] == "truncate_oldest"
    assert answer.context_management["note"] == "the model wrote no summary"
    assert answer.context_management["summary_usage"]["input_tokens"] > 0


def test_fault_while_summarising_is_the_calls(play: Any) -> None:
    from kilonova.core.errors import EngineError

    server, engine = play(lambda request: [EngineError("the step failed")])
    engine.script = lambda request: [0.01, EngineError("the step failed")]
    engine.context_length = CONTEXT
    engine.count_tokens = lambda request: len(engine.tokenizer.encode_chat(request.messages, request.tools))
    with pytest.raises(ClientError) as caught:
        server.boto3("bedrock-runtime").converse(
            modelId="micro", messages=converse_turns(12), additionalModelRequestFields=managed("summarize")
        )
    assert caught.value.response["Error"]["Code"] == "ModelErrorException"


def test_client_that_goes_stops_the_summary(play: Any) -> None:
    import socket

    server, engine = play_summaries(play, lambda prompt: "")
    engine.script = lambda request: [30.0]
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({"messages": converse_turns(12), "additionalModelRequestFields": managed("summarize")}).encode()
    head = f"POST /model/micro/converse HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head + body)
        deadline = time.monotonic() + 10
        while not engine.running:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    while engine.running:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(engine.requests) == 1


def test_a_keys_default(directory: Path, tmp_path: Path, tiny_micro_directory: Path) -> None:
    import openai

    from kilonova.serve.database import Database, default_url
    from kilonova.serve.keys.master import FILE_NAME, MasterKey
    from kilonova.serve.keys.store import KeyStore

    data = tmp_path / "data"
    data.mkdir()
    database = Database(default_url(data))
    database.migrate()
    master = MasterKey.open(data / FILE_NAME)
    _, secrets = KeyStore(database).create(master, "chat", context_strategy="truncate_oldest")
    database.close()
    with run_server(tmp_path, "--model", f"tiny={tiny_micro_directory}") as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=secrets.openai_key, max_retries=0)
        answer = client.chat.completions.create(model="tiny", messages=chat_turns(20), max_tokens=4)
        assert answer.context_management["strategy"] == "truncate_oldest"
        with pytest.raises(BadRequestError):
            client.chat.completions.create(
                model="tiny",
                messages=chat_turns(20),
                max_tokens=4,
                extra_body={"context_management": {"strategy": "none"}},
            )
        # What is evaluated is never shortened.
        with pytest.raises(BadRequestError):
            client.completions.create(model="tiny", prompt=[5] * 600, max_tokens=1, echo=True, logprobs=1)
