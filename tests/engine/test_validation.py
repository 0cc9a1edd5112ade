import math

import pytest

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import GenerationRequest, MediaBlock, Message, SamplingParams, TextBlock, ToolResultBlock
from kilonova.engine.validation import check_request, check_sampling

PICTURE = MediaBlock("image", "png", b"")


@pytest.mark.parametrize(
    ("sampling", "field", "allowed"),
    [
        ({"temperature": -0.1}, "temperature", "from 0 to 2"),
        ({"temperature": 2.1}, "temperature", "from 0 to 2"),
        ({"temperature": math.nan}, "temperature", "from 0 to 2"),
        ({"temperature": "1"}, "temperature", "from 0 to 2"),
        ({"top_p": 0.0}, "top_p", "above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p", "above 0 and at most 1"),
        ({"top_k": -1}, "top_k", "at least 0"),
        ({"top_k": 1.5}, "top_k", "an integer"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_tokens": -1, "prompt_logprobs": 0}, "max_tokens", "at least 0"),
        ({"max_tokens": True}, "max_tokens", "an integer"),
        ({"logprobs": 21}, "logprobs", "from 0 to 20"),
        ({"prompt_logprobs": -1}, "prompt_logprobs", "from 0 to 20"),
        ({"seed": 0.5}, "seed", "an integer"),
        ({"stop": ("a", "")}, "stop.1", "not empty"),
        ({"stop": ("a",) * 2501}, "stop", "at most 2500"),
        ({"frequency_penalty": 2.1}, "frequency_penalty", "from -2 to 2"),
        ({"presence_penalty": math.nan}, "presence_penalty", "from -2 to 2"),
        ({"repetition_penalty": 0}, "repetition_penalty", "above 0 and at most 10"),
        ({"min_p": 1.01}, "min_p", "from 0 to 1"),
        ({"logit_bias": {100: 1.0}}, "logit_bias", "integers from 0 to 99"),
        ({"logit_bias": {"3": 1.0}}, "logit_bias", "integers from 0 to 99"),
        ({"logit_bias": {3: 101}}, "logit_bias.3", "from -100 to 100"),
    ],
)
def test_parameters_out_of_range(sampling, field, allowed):
    with pytest.raises(InvalidRequest, match=allowed) as caught:
        check_sampling(SamplingParams(**sampling), vocab_size=100)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 0, "top_p": 1, "top_k": 0, "logprobs": 0},
        {"temperature": 2, "top_p": 1e-9, "top_k": 10**9, "logprobs": 20, "prompt_logprobs": 20},
        {"max_tokens": 0, "prompt_logprobs": 0},
        {"stop": ("x",) * 2500, "seed": -(2**70)},
        {"frequency_penalty": -2, "presence_penalty": 2, "repetition_penalty": 10, "min_p": 1},
        {"logit_bias": {0: -100, 99: 100.0}},
    ],
)
def test_parameters_within_range(sampling):
    check_sampling(SamplingParams(**sampling), vocab_size=100)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({}, "messages"),
        ({"prompt": "x", "messages": (Message("user", (TextBlock("x"),)),)}, "messages"),
        ({"messages": (Message("user", (TextBlock("x"), PICTURE)),)}, "messages.0.content.1"),
        ({"messages": (Message("user", (ToolResultBlock("1", (PICTURE,)),)),)}, "messages.0.content.0"),
        ({"prompt": (1, 2, 100)}, "prompt.2"),
        ({"prompt": (1, -1)}, "prompt.1"),
        ({"prompt": ("a",)}, "prompt.0"),
    ],
)
def test_contents_that_cannot_be_read(content, field):
    with pytest.raises(InvalidRequest) as caught:
        check_request(GenerationRequest(model="tiny", **content), vocab_size=100)
    assert caught.value.field == field
