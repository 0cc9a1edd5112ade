"""Adapters as models of a real server, asked by the clients themselves."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import openai
import pytest
import torch
from tests.serve.conftest import Server, run_server

from kilonova.core.types import GenerationRequest, Message, SamplingParams, TextBlock, TextDelta
from kilonova.engine.engine import Engine
from kilonova.models.adapter import AdapterConfig, adapter_layers, attach_adapter, merge_directories, save_adapter
from kilonova.models.checkpoint import load_decoder
from kilonova.models.library import import_model

NAMES = ("first", "second", "third", "kept", "stated")
QUESTION = "the quick brown fox"


@pytest.fixture(scope="module")
def folder(tiny_micro_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters of the random model, by name; the last names its base."""
    folder = tmp_path_factory.mktemp("adapters")
    for number, name in enumerate(NAMES):
        decoder = load_decoder(tiny_micro_directory)
        generator = torch.Generator().manual_seed(number)
        attach_adapter(decoder, AdapterConfig(rank=4 + number), generator)
        with torch.no_grad():
            for layer in adapter_layers(decoder).values():
                layer.lora_B.normal_(0, 0.3, generator=generator)
        save_adapter(decoder, folder / name, base="imported" if name == "stated" else "somewhere/else")
    return folder


@pytest.fixture(scope="module")
def served(tiny_micro_directory: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three adapters of a model by option, of which two fit, and two that are imported with another name of it."""
    directory = tmp_path_factory.mktemp("server")
    home = directory / "data" / "models"
    import_model("imported", tiny_micro_directory, link=True, home=home)
    import_model("kept", folder / "kept", base="imported", home=home)
    import_model("stated", folder / "stated", link=True, home=home)
    arguments = ["--model", f"tiny={tiny_micro_directory}", "--max-loras", "2"]
    for name in NAMES[:3]:
        arguments += ["--adapter", f"{name}=tiny:{folder / name}"]
    with run_server(directory, *arguments, may_fail=True) as running:
        yield running


@pytest.fixture(scope="module")
def expected(tiny_micro_directory: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each merged model answers to the question."""
    answers = {}
    for name in ("tiny", *NAMES):
        path = tiny_micro_directory
        if name != "tiny":
            path = tmp_path_factory.mktemp("merged") / name
            merge_directories(tiny_micro_directory, folder / name, path)
        engine = Engine.from_directory(path)
        try:
            messages = (Message("user", (TextBlock(QUESTION),)),)
            sampling = SamplingParams(max_tokens=20, temperature=0)
            events = list(engine.submit(GenerationRequest(model=name, messages=messages, sampling=sampling)))
            answers[name] = "".join(event.text for event in events if isinstance(event, TextDelta))
        finally:
            engine.close()
    assert len(set(answers.values())) == len(answers)
    return answers


def chat(client: openai.OpenAI, name: str) -> str | None:
    message = {"role": "user", "content": QUESTION}
    answer = client.chat.completions.create(model=name, messages=[message], max_tokens=20, temperature=0)
    assert answer.model == name
    return answer.choices[0].message.content


def converse(client: boto3.client, name: str) -> str:
    message = {"role": "user", "content": [{"text": QUESTION}]}
    answer = client.converse(modelId=name, messages=[message], inferenceConfig={"maxTokens": 20, "temperature": 0})
    return answer["output"]["message"]["content"][0]["text"]


def test_each_client_names_an_adapter_as_its_model(served, expected):
    """More adapters at once than are held, through both protocols."""
    bedrock = served.boto3("bedrock-runtime")
    with ThreadPoolExecutor(max_workers=12) as pool:
        chats = {name: pool.submit(chat, served.openai, name) for name in expected}
        conversations = {name: pool.submit(converse, bedrock, name) for name in expected}
    assert {name: future.result() for name, future in chats.items()} == expected
    assert {name: future.result() for name, future in conversations.items()} == expected
    report = served.wait_until_idle()["models"]
    assert sum(report[name]["loaded"] for name in NAMES[:3]) == 2
    assert report["kept"]["loaded"]
    assert report["stated"]["loaded"]


def test_streams_and_plain_completions(served, expected):
    message = {"role": "user", "content": QUESTION}
    stream = served.openai.chat.completions.create(
        model="second", messages=[message], max_tokens=20, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == expected["second"]
    texts = {
        name: served.openai.completions.create(model=name, prompt=QUESTION, max_tokens=20, temperature=0)
        .choices[0]
        .text
        for name in ("tiny", "first", "second")
    }
    assert len(set(texts.values())) == 3
    events = served.boto3("bedrock-runtime").converse_stream(
        modelId="third",
        messages=[{"role": "user", "content": [{"text": QUESTION}]}],
        inferenceConfig={"maxTokens": 20, "temperature": 0},
    )["stream"]
    deltas = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
    assert "".join(deltas) == expected["third"]


def test_they_are_listed_as_models(served):
    listed = {model.id: model for model in served.openai.models.list()}
    assert {*NAMES, "tiny", "imported"} <= listed.keys()
    assert {name: getattr(listed[name], "parent", None) for name in (*NAMES, "tiny")} == {
        "first": "tiny",
        "second": "tiny",
        "third": "tiny",
        "kept": "imported",
        "stated": "imported",
        "tiny": None,
    }
    assert served.openai.models.retrieve("kept").id == "kept"
    bedrock = served.boto3("bedrock")
    summaries = {model["modelId"]: model for model in bedrock.list_foundation_models()["modelSummaries"]}
    assert set(NAMES) <= summaries.keys()
    assert bedrock.get_foundation_model(modelIdentifier="first")["modelDetails"]["modelId"] == "first"


def test_one_that_is_gone_fails_its_own_requests_only(served, folder, expected):
    weights = folder / "first" / "adapter_model.safetensors"
    chat(served.openai, "second"), chat(served.openai, "third")
    assert not served.health()["models"]["first"]["loaded"]
    weights.rename(folder / "away")
    try:
        with pytest.raises(openai.InternalServerError, match="'first' cannot be loaded"):
            chat(served.openai, "first")
        with pytest.raises(served.boto3("bedrock-runtime").exceptions.ClientError, match="cannot be loaded"):
            converse(served.boto3("bedrock-runtime"), "first")
        assert chat(served.openai, "tiny") == expected["tiny"]
    finally:
        (folder / "away").rename(weights)
    assert chat(served.openai, "first") == expected["first"]
