"""/tokenize, /detokenize and /tokenizer_info, as vLLM's clients ask for them."""

import json
import urllib.request

import pytest
from tests.serve.conftest import run_server

from kilonova.core.types import Message, TextBlock
from kilonova.text.tokenizer import Tokenizer

CHAT = [{"role": "user", "content": "the quick"}]


@pytest.fixture(scope="module")
def tokenizer(tiny_micro_directory):
    return Tokenizer.from_directory(tiny_micro_directory)


def get(server, path):
    with urllib.request.urlopen(server.url + path, timeout=30) as response:
        return json.load(response)


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_there_and_back(server, tokenizer, prefix):
    end = tokenizer.token_text(tokenizer.eos_token_id)
    text = f"the quick brown fox{end}"
    status, _, answer = server.post(
        f"{prefix}/tokenize", {"model": "tiny", "prompt": text, "add_special_tokens": False, "return_token_strs": True}
    )
    assert status == 200
    assert answer["tokens"] == tokenizer.encode(text, allow_special=True)
    assert answer["tokens"][-1] == tokenizer.eos_token_id
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    assert answer["token_strs"][-1] == end
    assert answer["max_model_len"] == 512
    status, _, back = server.post(f"{prefix}/detokenize", {"model": "tiny", "tokens": answer["tokens"]})
    assert (status, back) == (200, {"prompt": text})


def test_a_chat_has_the_tokens_it_is_billed_for(server, tokenizer):
    _, _, answer = server.post("/tokenize", {"model": "tiny", "messages": CHAT})
    assert answer["tokens"] == tokenizer.encode_chat([Message("user", (TextBlock("the quick"),))])
    chat = server.openai.chat.completions.create(model="tiny", messages=CHAT, max_tokens=1)
    assert answer["count"] == chat.usage.prompt_tokens
    _, _, closed = server.post("/tokenize", {"model": "tiny", "messages": CHAT, "add_generation_prompt": False})
    assert closed["count"] < answer["count"]


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_tokenizer_info(server, tokenizer, prefix):
    info = get(server, f"{prefix}/tokenizer_info?model=tiny")
    assert info["eos_token"] == tokenizer.token_text(tokenizer.eos_token_id)
    assert info["chat_template"] == tokenizer.chat_template.source
    assert info["tokenizer_class"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        # The shipped model is served as well, and has a tokenizer of its own.
        ("/tokenize", {"prompt": "a"}, "model"),
        ("/tokenize", {"model": "tiny"}, "prompt"),
        ("/tokenize", {"model": "tiny", "prompt": "a", "messages": CHAT}, "prompt"),
        ("/tokenize", {"model": "tiny", "messages": []}, "messages"),
        ("/detokenize", {"model": "tiny"}, "tokens"),
        ("/detokenize", {"model": "tiny", "tokens": [1, 512]}, "tokens[1]"),
        ("/detokenize", {"model": "tiny", "tokens": [-1]}, "tokens[0]"),
    ],
)
def test_refusals(server, path, body, param):
    status, _, answer = server.post(path, body)
    assert (status, answer["error"]["param"]) == (400, param)


def test_the_model_need_not_be_named_where_one_tokenizer_is_served(tmp_path):
    with run_server(tmp_path) as server:
        eos = get(server, "/tokenizer_info")["eos_token"]
        _, _, answer = server.post("/tokenize", {"prompt": eos, "add_special_tokens": False})
        assert answer["count"] == 1
        assert server.post("/detokenize", {"tokens": answer["tokens"]})[2] == {"prompt": eos}
