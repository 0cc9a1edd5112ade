from dataclasses import replace

import pytest
from tests.engine.conftest import chat

from kilonova.core.types import CachePointBlock, GenerationRequest, Message, TextBlock, Tool, ToolUseBlock
from kilonova.engine.cache_points import CachePoint, find_cache_points
from kilonova.text.chat_template import ChatTemplate

SYSTEM = Message("system", (TextBlock("you are a fox " * 9), CachePointBlock()))
QUESTION = Message("user", (TextBlock("a long document " * 9), CachePointBlock(3600), TextBlock("what is it")))


def request_of(*messages: Message, tools: tuple[Tool, ...] = ()) -> GenerationRequest:
    return replace(chat("x"), messages=messages, tools=tools)


def test_points_lie_where_the_conversation_up_to_them_ends(tiny_tokenizer):
    request = request_of(SYSTEM, QUESTION)
    tokens = tiny_tokenizer.encode_chat(request.messages)
    first, second = find_cache_points(tiny_tokenizer, request, tokens)
    assert (first.ttl, second.ttl) == (300, 3600)
    text = [tiny_tokenizer.decode(tokens[: point.num_tokens], skip_special_tokens=False) for point in (first, second)]
    whole = tiny_tokenizer.render_chat(request.messages)
    assert all(whole.startswith(part) for part in text)
    # To within one token, which may join what is before and after the point.
    assert text[0].count("fox") == 9
    assert "document" not in text[0]
    assert text[1].count("document") == 9
    assert "what is" not in text[1]


def test_what_follows_a_point_does_not_move_it(tiny_tokenizer):
    points = set()
    for question in ("what", "is it", "another one"):
        request = request_of(SYSTEM, Message("user", (TextBlock(question),)))
        points.add(*find_cache_points(tiny_tokenizer, request, tiny_tokenizer.encode_chat(request.messages)))
    assert len(points) == 1


def test_points_say_nothing_to_the_model(tiny_tokenizer):
    bare = [
        replace(each, content=tuple(b for b in each.content if isinstance(b, TextBlock))) for each in (SYSTEM, QUESTION)
    ]
    assert tiny_tokenizer.encode_chat([SYSTEM, QUESTION]) == tiny_tokenizer.encode_chat(bare)


def test_points_after_tool_calls_and_at_the_ends(tiny_tokenizer):
    tool = Tool("fox", "d", {"type": "object"})
    call = Message("assistant", (ToolUseBlock("1", "fox", {"over": "the lazy dog"}), CachePointBlock()))
    # Before the first one there is nothing to keep.
    question = Message("user", (CachePointBlock(), TextBlock("the quick brown"), CachePointBlock()))
    request = request_of(question, call, Message("user", (TextBlock("well"),)), tools=(tool,))
    tokens = tiny_tokenizer.encode_chat(request.messages, request.tools)
    end, after_call = find_cache_points(tiny_tokenizer, request, tokens)
    assert end.num_tokens < after_call.num_tokens < len(tokens)
    assert "lazy dog" in tiny_tokenizer.decode(tokens[: after_call.num_tokens])
    assert tiny_tokenizer.decode(tokens[: end.num_tokens]).rstrip().endswith("the quick brown")


def test_a_template_that_refuses_part_of_a_conversation_costs_only_the_point(tiny_tokenizer, monkeypatch):
    source = tiny_tokenizer.chat_template.source
    refusing = "{% if messages[-1].role == 'system' %}{{ raise_exception('no question') }}{% endif %}" + source
    monkeypatch.setattr(tiny_tokenizer, "chat_template", ChatTemplate(refusing))
    request = request_of(SYSTEM, QUESTION)
    tokens = tiny_tokenizer.encode_chat(request.messages)
    (point,) = find_cache_points(tiny_tokenizer, request, tokens)
    assert isinstance(point, CachePoint)
    assert point.ttl == 3600


@pytest.mark.parametrize("request_", [chat("hello"), GenerationRequest(model="tiny", prompt="hello")])
def test_no_points(tiny_tokenizer, request_):
    assert find_cache_points(tiny_tokenizer, request_, [1, 2, 3]) == []
