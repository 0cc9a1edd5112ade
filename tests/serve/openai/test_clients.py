"""The openai package against a real server process with a random model."""

import math

import openai
import pytest
from openai.types.chat import ChatCompletion

USER = [{"role": "user", "content": "tell me"}]
GREEDY = {"model": "tiny", "temperature": 0, "max_tokens": 12}


def counts(usage):
    """A usage without what was found in the cache, which depends on what ran before."""
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


@pytest.fixture
def client(server):
    return server.openai


@pytest.fixture(scope="module")
def tokenizer(tiny_micro_directory):
    from kilonova.text.tokenizer import Tokenizer

    return Tokenizer.from_directory(tiny_micro_directory)


def test_models(client):
    assert "tiny" in [model.id for model in client.models.list()]
    model = client.models.retrieve("tiny")
    assert (model.id, model.object) == ("tiny", "model")
    assert model.created > 1_500_000_000
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("amazon/unknown")
    assert caught.value.code == "model_not_found"


def test_bedrocks_path(server):
    client = server.openai.with_options(base_url=f"{server.url}/openai/v1")
    assert "tiny" in [model.id for model in client.models.list()]
    assert client.chat.completions.create(messages=USER, **GREEDY).choices[0].message.role == "assistant"
    assert client.responses.create(model="tiny", input="tell me", max_output_tokens=2).object == "response"
    status, _, answer = server.post("/openai/v1/sing", {})
    assert (status, answer["error"]["code"]) == (404, "unknown_url")


def test_chat(client):
    answer = client.chat.completions.create(messages=USER, **GREEDY)
    assert isinstance(answer, ChatCompletion)
    assert answer.object == "chat.completion"
    assert answer.model == "tiny"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 <= answer.usage.prompt_tokens_details.cached_tokens < answer.usage.prompt_tokens


def test_chat_equals_converse(server, client):
    answer = client.chat.completions.create(messages=USER, **GREEDY)
    converse = server.boto3("bedrock-runtime").converse(
        modelId="tiny",
        messages=[{"role": "user", "content": [{"text": "tell me"}]}],
        inferenceConfig={"maxTokens": 12, "temperature": 0.0},
    )
    assert answer.choices[0].message.content == converse["output"]["message"]["content"][0]["text"]
    assert answer.usage.prompt_tokens == converse["usage"]["inputTokens"]
    assert answer.usage.completion_tokens == converse["usage"]["outputTokens"]


def test_streamed_chat_equals_the_whole_answer(client):
    whole = client.chat.completions.create(messages=USER, logprobs=True, top_logprobs=3, **GREEDY)
    chunks = list(
        client.chat.completions.create(
            messages=USER,
            logprobs=True,
            top_logprobs=3,
            stream=True,
            stream_options={"include_usage": True},
            **GREEDY,
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    *parts, last = chunks
    assert last.choices == []
    assert counts(last.usage) == counts(whole.usage)
    assert all(part.usage is None for part in parts)
    assert parts[0].choices[0].delta.role == "assistant"
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole.choices[0].message.content
    assert parts[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    streamed = [token for part in parts if part.choices[0].logprobs for token in part.choices[0].logprobs.content]
    assert [token.token for token in streamed] == [token.token for token in whole.choices[0].logprobs.content]
    for token in streamed:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob
        assert token.logprob <= 0


def test_choices_seeds_and_sampling(client):
    request = {"model": "tiny", "messages": USER, "temperature": 1.0, "max_tokens": 8, "n": 3, "seed": 11}
    first = client.chat.completions.create(**request)
    second = client.chat.completions.create(**request)
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert texts == [choice.message.content for choice in second.choices]
    assert len(set(texts)) > 1
    assert first.usage.completion_tokens > 8


def test_completion_of_text_and_of_token_ids(client, tokenizer):
    text = "the quick brown fox"
    ids = tokenizer.encode(text)
    by_text = client.completions.create(prompt=text, **GREEDY)
    by_ids = client.completions.create(prompt=ids, **GREEDY)
    assert by_text.object == "text_completion"
    assert by_text.choices[0].text == by_ids.choices[0].text
    assert counts(by_text.usage) == counts(by_ids.usage)
    assert by_text.usage.prompt_tokens == len(ids)


def test_completions_of_a_list_of_prompts(client, tokenizer):
    prompts = ["the quick", "the lazy dog"]
    answer = client.completions.create(prompt=prompts, n=2, **GREEDY)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    for index, prompt in enumerate(prompts):
        alone = client.completions.create(prompt=prompt, **GREEDY).choices[0].text
        assert answer.choices[2 * index].text == answer.choices[2 * index + 1].text == alone
    assert answer.usage.prompt_tokens == sum(len(tokenizer.encode(prompt)) for prompt in prompts)
    by_ids = client.completions.create(prompt=[tokenizer.encode(prompt) for prompt in prompts], **GREEDY)
    assert by_ids.choices[1].text == answer.choices[2].text


def test_echo_scores_the_prompt(client, tokenizer, tiny_micro_directory):
    import torch

    from kilonova.models.checkpoint import load_decoder

    text = "the quick brown fox jumps"
    ids = tokenizer.encode(text)
    answer = client.completions.create(model="tiny", prompt=ids, echo=True, logprobs=2, max_tokens=0, temperature=0)
    choice = answer.choices[0]
    assert choice.text == text
    report = choice.logprobs
    assert report.tokens == [tokenizer.token_text(token) for token in ids]
    assert report.text_offset == [len("".join(report.tokens[:index])) for index in range(len(ids))]
    assert report.token_logprobs[0] is None
    assert report.top_logprobs[0] is None
    with torch.inference_mode():
        logits = load_decoder(tiny_micro_directory)(torch.tensor([ids]))
    expected = logits[0, :-1].float().log_softmax(-1)[range(len(ids) - 1), ids[1:]]
    assert report.token_logprobs[1:] == pytest.approx(expected.tolist(), abs=1e-3)
    for token, logprob, top in zip(report.tokens[1:], report.token_logprobs[1:], report.top_logprobs[1:], strict=True):
        assert top[token] == logprob
        assert 2 <= len(top) <= 3 or logprob == max(top.values())

    longer = client.completions.create(prompt=text, echo=True, logprobs=1, **GREEDY).choices[0]
    assert longer.text.startswith(text)
    assert "".join(longer.logprobs.tokens[: len(ids)]) == text
    assert len(longer.logprobs.tokens) > len(ids)
    assert not any(math.isnan(logprob) for logprob in longer.logprobs.token_logprobs[1:])


def test_streamed_completion_equals_the_whole_answer(client):
    request = {"prompt": "the quick brown fox", "echo": True, "logprobs": 1, **GREEDY}
    whole = client.completions.create(**request)
    chunks = list(client.completions.create(stream=True, stream_options={"include_usage": True}, **request))
    *parts, last = chunks
    assert counts(last.usage) == counts(whole.usage)
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    offsets = [offset for part in parts if part.choices[0].logprobs for offset in part.choices[0].logprobs.text_offset]
    assert offsets == whole.choices[0].logprobs.text_offset
    assert parts[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_stop_sequences(client):
    text = client.completions.create(prompt="the quick", **GREEDY).choices[0].text
    stopped = client.completions.create(prompt="the quick", stop=text[4:6], **GREEDY).choices[0]
    assert stopped.text == text[: text.index(text[4:6])]
    assert stopped.finish_reason == "stop"


def test_leaving_a_stream_frees_its_places(server, client):
    server.wait_until_idle()
    stream = client.chat.completions.create(
        model="tiny", messages=USER, max_tokens=450, temperature=1, n=100, stream=True
    )
    next(iter(stream))
    report = server.health()["models"]["tiny"]
    assert report["running"] > 0
    assert report["waiting"] > 0
    stream.close()
    server.wait_until_idle(3)


def test_logit_bias_forces_a_token(client, tokenizer):
    (token,) = tokenizer.encode("a")
    answer = client.chat.completions.create(
        model="tiny", messages=USER, max_tokens=4, temperature=1, logit_bias={str(token): 100}
    )
    assert answer.choices[0].message.content == "a" * 4
    first = client.completions.create(prompt="the quick", logprobs=0, **GREEDY).choices[0].logprobs.tokens[0]
    banned = {str(token): -100 for token in range(tokenizer.vocab_size) if tokenizer.token_text(token) == first}
    answer = client.completions.create(prompt="the quick", logprobs=0, logit_bias=banned, **GREEDY)
    assert answer.choices[0].logprobs.tokens[0] != first


def test_penalties_change_the_answer(client):
    text = client.completions.create(prompt="the quick", **(GREEDY | {"max_tokens": 40})).choices[0].text
    for penalty in ({"frequency_penalty": 2}, {"presence_penalty": 2}, {"extra_body": {"repetition_penalty": 2}}):
        answer = client.completions.create(prompt="the quick", **(GREEDY | {"max_tokens": 40}), **penalty)
        assert answer.choices[0].text != text


def test_an_answer_that_ends_at_once_scores_its_end(client, tokenizer):
    end = tokenizer.eos_token_id
    ids = tokenizer.encode("the quick brown fox")
    request = {"model": "tiny", "prompt": ids, "temperature": 0, "max_tokens": 1, "logprobs": 1, "echo": True}
    choice = client.completions.create(logit_bias={str(end): 100}, **request).choices[0]
    assert choice.finish_reason == "stop"
    assert choice.text == "the quick brown fox"
    # Evaluation takes the last entry to be the generated token.
    assert len(choice.logprobs.token_logprobs) == len(ids) + 1
    assert choice.logprobs.tokens[-1] == tokenizer.token_text(end)
    assert choice.logprobs.token_logprobs[-1] < 0


def test_prompt_logprobs_without_an_echo(client, tokenizer):
    ids = tokenizer.encode("the quick brown fox")
    extra = {"extra_body": {"prompt_logprobs": 0}}
    answer = client.completions.create(model="tiny", prompt=ids, max_tokens=0, temperature=0, **extra)
    first, *rest = answer.choices[0].model_extra["prompt_logprobs"]
    echoed = client.completions.create(model="tiny", prompt=ids, max_tokens=0, temperature=0, echo=True, logprobs=0)
    assert first is None
    assert [next(iter(each)) for each in rest] == [str(token) for token in ids[1:]]
    logprobs = [next(iter(each.values()))["logprob"] for each in rest]
    assert logprobs == pytest.approx(echoed.choices[0].logprobs.token_logprobs[1:], abs=1e-5)
    assert answer.choices[0].text == ""
