import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pytest
import torch
from tests.engine.conftest import VARIANTS, chat, raw

from kilonova.core.errors import (
    CheckpointError,
    ConfigError,
    ContextLengthExceeded,
    EngineError,
    InvalidRequest,
    Overloaded,
)
from kilonova.core.types import (
    Finished,
    GenerationRequest,
    PromptProcessed,
    SamplingParams,
    TextDelta,
    Tool,
    ToolUse,
    ToolUseStart,
)
from kilonova.engine.config import EngineConfig
from kilonova.engine.engine import MAX_FAILED_STEPS, Engine
from kilonova.engine.runner import StepTokens
from kilonova.models.checkpoint import save_decoder
from kilonova.models.decoder.model import Decoder
from kilonova.text.tokenizer import Tokenizer


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def finish(generation):
    """Text and last event of a generation read to its end."""
    events = list(generation)
    assert isinstance(events[0], PromptProcessed)
    assert all(isinstance(event, (TextDelta, ToolUse)) for event in events[1:-1])
    assert isinstance(events[-1], Finished)
    return text_of(events), events[-1]


def tokens_of(events):
    return [entry.token_id for event in events if isinstance(event, TextDelta) for entry in event.logprobs]


class CountedStep:
    """A model step that counts the tokens of its calls, and from a given moment on fails."""

    def __init__(self, step: Callable[[list[StepTokens]], torch.Tensor]) -> None:
        self.step = step
        self.lengths: list[int] = []
        self.fails = False

    def __call__(self, tokens: list[StepTokens]) -> torch.Tensor:
        self.lengths.append(sum(len(one.token_ids) for one in tokens))
        if self.fails:
            raise RuntimeError("out of memory, as it were")
        return self.step(tokens)


@pytest.fixture
def counted(tiny_decoder, tiny_tokenizer):
    """An engine with one place, and its model step."""
    engine = Engine(tiny_decoder, tiny_tokenizer, EngineConfig(max_num_seqs=1, max_queue=2))
    step = engine._runner.step = CountedStep(engine._runner.step)
    yield engine, step
    engine.close()


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_greedy_equals_transformers_generate(variant, make_decoder, tiny_tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    config = replace(make_decoder(variant).config, vocab_size=512, initializer_range=0.2)
    model = Decoder(config)
    model.init_weights(torch.Generator().manual_seed(5))
    save_decoder(model, tmp_path / "model")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    stop = tiny_tokenizer.stop_token_ids
    engine = Engine(model, tiny_tokenizer)
    prompts = [tuple(range(3, 3 + length)) for length in (1, 9, 33)]
    generations = [engine.submit(raw(prompt, temperature=0, max_tokens=40, logprobs=0)) for prompt in prompts]
    for prompt, generation in zip(prompts, generations, strict=True):
        expected = reference.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=40, eos_token_id=None, pad_token_id=0
        )[0, len(prompt) :]
        before_end = list(takewhile(lambda token: token not in stop, expected.tolist()))
        # The end of a raw prompt's text is reported with it.
        assert tokens_of(generation) == expected.tolist()[: len(before_end) + 1]
    engine.close()


def test_sixteen_streams_equal_each_alone(engine):
    requests = [
        chat("word " * (1 + 7 * number), seed=number, temperature=1.0, top_p=0.95, top_k=number * 3, max_tokens=40)
        for number in range(16)
    ]
    alone = [finish(engine.submit(request)) for request in requests]
    together = [finish(generation) for generation in [engine.submit(request) for request in requests]]
    for (text, finished), (text_alone, finished_alone) in zip(together, alone, strict=True):
        assert text == text_alone
        assert finished.usage.total_tokens == finished_alone.usage.total_tokens
        assert finished.stop_reason == finished_alone.stop_reason
    assert len({text for text, _ in alone}) == 16


def test_a_seed_repeats_and_no_seed_varies(engine):
    texts = [finish(engine.submit(chat("hello", seed=5, temperature=1.0, max_tokens=30)))[0] for _ in range(2)]
    assert texts[0] == texts[1]
    texts = [finish(engine.submit(chat("hello", temperature=1.0, max_tokens=30)))[0] for _ in range(3)]
    assert len(set(texts)) == 3


def test_usage_is_exact(engine, tiny_tokenizer):
    request = chat("the quick brown fox", temperature=0, max_tokens=12, logprobs=0)
    events = list(engine.submit(request))
    expected = len(tiny_tokenizer.encode_chat(request.messages))
    assert engine.count_tokens(request) == expected == events[0].input_tokens
    assert events[0].token_ids == tuple(tiny_tokenizer.encode_chat(request.messages))
    assert events[-1].usage.input_tokens == expected
    assert events[-1].usage.output_tokens == 12 == len(tokens_of(events))
    assert events[-1].stop_reason == "max_tokens"
    assert 0 < events[-1].time_to_first_token <= events[-1].latency


def biased(decoder, tokenizer, text):
    """Makes a decoder that says `text` and ends its turn, whatever it is asked."""
    token_ids = [*tokenizer.encode(text, allow_special=True), tokenizer.eos_token_id]
    assert len(set(token_ids)) == len(token_ids)
    opening = tokenizer.encode_chat(chat("x").messages)[-1]
    with torch.no_grad():
        for layer in decoder.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        decoder.lm_head.weight.zero_()
        rows = decoder.model.embed_tokens.weight
        for before, after in zip([opening, *token_ids[:-1]], token_ids, strict=True):
            decoder.lm_head.weight[after] += 10 * rows[before] / rows[before].norm()
    return decoder


def test_the_end_of_turn_is_counted_and_not_shown(tiny_decoder, tiny_tokenizer):
    model = biased(tiny_decoder, tiny_tokenizer, "the fox")
    engine = Engine(model, tiny_tokenizer)
    text, finished = finish(engine.submit(chat("anything", temperature=0, logprobs=1)))
    assert (text, finished.stop_reason) == ("the fox", "end_turn")
    assert finished.usage.output_tokens == len(tiny_tokenizer.encode("the fox")) + 1
    engine.close()


def test_tool_calls_end_with_tool_use(tiny_decoder, tiny_tokenizer):
    malformed = '<tool_call> {"name": "fox"}</tool_call>'
    engine = Engine(biased(tiny_decoder, tiny_tokenizer, malformed), tiny_tokenizer)
    tool = Tool("fox", "d", {"type": "object", "properties": {}})
    request = GenerationRequest(
        model="tiny",
        messages=chat("x").messages,
        tools=(tool,),
        sampling=chat("x", temperature=0).sampling,
        parallel_tool_calls=False,
    )
    _, start, *pieces, use, finished = engine.submit(request)
    assert isinstance(start, ToolUseStart)
    assert (start.id, start.name) == (use.block.id, "fox")
    assert "".join(piece.text for piece in pieces) == "{}"
    assert (use.block.name, use.block.input) == ("fox", {})
    assert finished.stop_reason == "tool_use"
    call = '<tool_call>\n{"name": "fox", "arguments": {}}\n</tool_call>'
    assert finished.usage.output_tokens == len(tiny_tokenizer.encode(call, allow_special=True)) + 1
    text, finished = finish(engine.submit(chat("x", temperature=0)))
    assert (text, finished.stop_reason) == (malformed, "end_turn")
    engine.close()


def test_stop_sequences_end_the_text_before_them(engine):
    request = chat("tell", temperature=1.0, seed=8, max_tokens=60)
    text, _ = finish(engine.submit(request))
    clean = [start for start in range(8, len(text) - 4) if "\ufffd" not in text[start : start + 4]]
    stop = next(text[start : start + 4] for start in clean if text.find(text[start : start + 4]) == start)
    stopped, finished = finish(engine.submit(chat("tell", temperature=1.0, seed=8, max_tokens=60, stop=("%%%", stop))))
    assert stopped == text[: text.index(stop)]
    assert (finished.stop_reason, finished.stop_sequence) == ("stop_sequence", stop)
    assert finished.usage.output_tokens < 60


def test_deltas_do_not_depend_on_reading_speed(engine):
    generation = engine.submit(chat("slow", temperature=1.0, seed=1, max_tokens=20))
    wait_for(lambda: engine.stats().running == 0)
    assert finish(generation)[1].usage.output_tokens == 20


def test_the_context_ends_generation(tiny_micro_directory):
    engine = Engine.from_directory(tiny_micro_directory, EngineConfig(max_context=40), dtype="float32")
    assert engine.context_length == 40
    prompt = tuple(range(1, 31))
    _, finished = finish(engine.submit(raw(prompt, temperature=0)))
    assert finished.stop_reason == "model_context_window_exceeded"
    assert finished.usage.total_tokens == 40
    _, finished = finish(engine.submit(raw(prompt, temperature=0, max_tokens=10)))
    assert (finished.stop_reason, finished.usage.total_tokens) == ("max_tokens", 40)
    for length, max_tokens, field in (
        (30, 11, "max_tokens"),
        (40, 1, "prompt"),
        (40, None, "prompt"),
        (41, 5, "prompt"),
    ):
        with pytest.raises(ContextLengthExceeded, match="40") as caught:
            engine.submit(raw(tuple(range(length)), max_tokens=max_tokens))
        assert caught.value.field == field
    full = list(engine.submit(raw(tuple(range(40)), max_tokens=0, prompt_logprobs=0)))
    assert full[-1].usage.total_tokens == 40
    engine.close()


def test_logprobs_are_of_the_unfiltered_distribution(tiny_decoder, tiny_tokenizer):
    engine = Engine(tiny_decoder, tiny_tokenizer)
    prompt = tuple(range(20, 30))
    events = list(engine.submit(raw(prompt, temperature=0.5, top_k=5, seed=3, max_tokens=15, logprobs=4)))
    entries = [entry for event in events if isinstance(event, TextDelta) for entry in event.logprobs]
    tokens = [entry.token_id for entry in entries]
    with torch.no_grad():
        expected = tiny_decoder(torch.tensor([[*prompt, *tokens]]))[0].log_softmax(dim=-1)
    for position, entry in enumerate(entries, start=len(prompt) - 1):
        assert entry.logprob == pytest.approx(expected[position, entry.token_id].item(), abs=1e-4)
        values, indices = expected[position].topk(4)
        assert [top.token_id for top in entry.top] == indices.tolist()
        assert [top.logprob for top in entry.top] == pytest.approx(values.tolist(), abs=1e-4)
        assert entry.text == tiny_tokenizer.token_text(entry.token_id)
        assert entry.token_id in expected[position].topk(5).indices
    engine.close()


def test_each_request_gets_as_many_alternatives_as_it_asks_for(engine):
    generations = [
        engine.submit(chat("x", temperature=1.0, seed=number, max_tokens=8, logprobs=top))
        for number, top in enumerate((None, 0, 3, 20))
    ]
    for generation, top in zip(generations, (None, 0, 3, 20), strict=True):
        entries = [entry for event in generation if isinstance(event, TextDelta) for entry in event.logprobs]
        assert len(entries) == (0 if top is None else 8)
        assert all(len(entry.top) == top for entry in entries)


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_prompt_logprobs(tiny_decoder, tiny_tokenizer, max_tokens):
    engine = Engine(tiny_decoder, tiny_tokenizer)
    engine._scheduler._prefill_tokens = 7
    prompt = tuple(range(100, 130))
    events = list(engine.submit(raw(prompt, temperature=0, max_tokens=max_tokens, prompt_logprobs=2)))
    assert events[0].token_ids == prompt
    assert events[0].logprobs[0] is None
    assert len(events[0].logprobs) == len(prompt)
    with torch.no_grad():
        expected = tiny_decoder(torch.tensor([prompt]))[0].log_softmax(dim=-1)
    for position, entry in enumerate(events[0].logprobs[1:]):
        assert entry.token_id == prompt[position + 1]
        assert entry.logprob == pytest.approx(expected[position, entry.token_id].item(), abs=1e-4)
        assert [top.token_id for top in entry.top] == expected[position].topk(2).indices.tolist()
    assert events[-1].stop_reason == "max_tokens"
    assert events[-1].usage.output_tokens == max_tokens
    assert len(events) == 2 or max_tokens
    engine.close()


def test_a_prompt_read_in_chunks_beside_streams_changes_nothing(tiny_micro_directory):
    engine = Engine.from_directory(tiny_micro_directory, dtype="float32")
    long = chat("word " * 100, temperature=1.0, seed=2, max_tokens=30)
    alone = finish(engine.submit(long))[0]
    engine._scheduler._mixed_prefill_tokens = 5
    stream = engine.submit(chat("stream", temperature=0, max_tokens=300))
    next(stream)
    assert finish(engine.submit(long))[0] == alone
    stream.cancel()
    engine.close()


def test_invalid_requests_are_refused_at_once(engine):
    for request in (chat("x", temperature=3), raw(""), raw((1, 512)), GenerationRequest(model="tiny")):
        with pytest.raises(InvalidRequest):
            engine.submit(request)
    with pytest.raises(InvalidRequest):
        engine.count_tokens(raw(""))
    assert engine.stats().running == engine.stats().waiting == 0


def test_raw_prompts_may_hold_control_tokens(engine, tiny_tokenizer):
    request = chat("hello")
    rendered = tiny_tokenizer.render_chat(request.messages)
    assert engine.count_tokens(raw(rendered)) == engine.count_tokens(request)


def test_a_full_queue_is_overloaded(counted):
    engine, _ = counted
    generations = [engine.submit(chat("x", temperature=0, max_tokens=400)) for _ in range(3)]
    with pytest.raises(Overloaded):
        engine.submit(chat("x"))
    for generation in generations:
        generation.cancel()
    wait_for(lambda: engine.stats().running + engine.stats().waiting == 0)
    finish(engine.submit(chat("x", max_tokens=1)))


def test_cancel_frees_the_place_within_one_step(counted):
    engine, step = counted
    first = engine.submit(chat("x", temperature=0, max_tokens=500))
    next(first)
    second = engine.submit(chat("word " * 20, temperature=0, max_tokens=2))
    assert engine.stats().running == engine.stats().waiting == 1
    first.cancel()
    steps = len(step.lengths)
    assert finish(second)[1].usage.output_tokens == 2
    # At most the step under way belongs to the cancelled request; then the next prompt is read at once.
    assert next(index for index, length in enumerate(step.lengths[1:], 1) if length > 1) <= steps + 1
    assert not any(isinstance(event, Finished) for event in first)
    assert list(first) == []
    first.cancel()
    assert engine.stats().kv_tokens == 0


def test_a_waiting_request_can_be_cancelled(counted):
    engine, _ = counted
    first = engine.submit(chat("x", temperature=0, max_tokens=500))
    second = engine.submit(chat("y"))
    second.cancel()
    assert list(second) == []
    assert engine.stats().waiting == 0
    first.cancel()


def test_a_failing_step_ends_its_requests_and_the_engine_lives_on(counted, caplog):
    engine, step = counted
    running = engine.submit(chat("x", temperature=0, max_tokens=500))
    next(running)
    step.fails = True
    with pytest.raises(EngineError, match="out of memory, as it were") as caught:
        list(running)
    assert isinstance(caught.value.__cause__, RuntimeError)
    step.fails = False
    assert finish(engine.submit(chat("x", temperature=0, max_tokens=3)))[1].usage.output_tokens == 3
    assert engine.stats().kv_tokens == 0
    assert "a step failed" in caplog.text


def test_an_engine_whose_every_step_fails_stops_and_answers_everyone(counted):
    engine, step = counted
    step.fails = True
    for request in [engine.submit(chat("x", temperature=0, max_tokens=5)) for _ in range(MAX_FAILED_STEPS)]:
        with pytest.raises(EngineError):
            list(request)
    wait_for(lambda: engine.is_closed)
    with pytest.raises(EngineError, match="closed"):
        engine.submit(chat("x"))


def test_a_generation_can_be_made_to_fail(counted):
    engine, _ = counted

    async def fail():
        generation = engine.submit(chat("x", temperature=0, max_tokens=500))
        await anext(generation)
        assert generation.progress().queue_time is not None
        generation.fail(TimeoutError("too long"))
        with pytest.raises(TimeoutError, match="too long"):
            async for _ in generation:
                pass

    asyncio.run(fail())
    finish(engine.submit(chat("y", max_tokens=1)))
    assert engine.stats().running == 0
    assert engine.stats().steps > 0


def test_a_request_whose_numbers_overflow_harms_no_other(tiny_decoder, tiny_tokenizer):
    """One token's embedding is not a number: whoever reads it fails, beside others and before them in the same slot."""
    with torch.no_grad():
        tiny_decoder.model.embed_tokens.weight[7] = float("nan")
    engine = Engine(tiny_decoder, tiny_tokenizer, EngineConfig(max_num_seqs=4))
    healthy = [
        raw(tuple(range(20, 30 + number)), seed=number, temperature=1.0, top_k=3, max_tokens=30) for number in range(3)
    ]
    alone = [finish(engine.submit(request))[0] for request in healthy]
    for _ in range(2):
        broken = engine.submit(raw((20, 21, 7, 22), temperature=1.0, max_tokens=30))
        generations = [engine.submit(request) for request in healthy]
        with pytest.raises(EngineError, match="not finite"):
            list(broken)
        assert [finish(generation)[0] for generation in generations] == alone
    assert [finish(engine.submit(request))[0] for request in healthy * 2] == alone * 2
    engine.close()


class DamagedTokenizer(Tokenizer):
    """A tokenizer that cannot spell its tokens."""

    def token_text(self, token_id: int) -> str:
        raise ValueError("no such token")


def test_a_fault_in_one_output_harms_no_other(tiny_decoder, tiny_tokenizer_directory):
    engine = Engine(tiny_decoder, DamagedTokenizer.from_directory(tiny_tokenizer_directory))
    plain = engine.submit(chat("x", temperature=1.0, seed=1, max_tokens=30))
    faulty = engine.submit(chat("x", temperature=1.0, seed=1, max_tokens=30, logprobs=1))
    echoed = engine.submit(chat("x", temperature=1.0, seed=1, max_tokens=30, prompt_logprobs=1))
    for generation in (faulty, echoed):
        with pytest.raises(EngineError, match="no such token"):
            list(generation)
    assert finish(plain)[1].usage.output_tokens == 30
    engine.close()


def test_async_iteration_of_many_generations(engine):
    requests = [chat("async", seed=number, temperature=1.0, max_tokens=25) for number in range(12)]
    expected = [finish(engine.submit(request))[0] for request in requests]

    async def read(request):
        return [event async for event in engine.submit(request)]

    async def main():
        return await asyncio.gather(*(read(request) for request in requests))

    results = asyncio.run(main())
    assert [text_of(events) for events in results] == expected
    assert all(isinstance(events[-1], Finished) for events in results)


def test_async_errors_and_cancellation(counted):
    engine, step = counted

    async def main():
        stopped = engine.submit(chat("x", temperature=0, max_tokens=500))
        events = []
        async for event in stopped:
            events.append(event)
            if len(events) == 3:
                stopped.cancel()
        assert not any(isinstance(event, Finished) for event in events)
        running = engine.submit(chat("x", temperature=0, max_tokens=500))
        await anext(running)
        step.fails = True
        with pytest.raises(EngineError):
            async for _ in running:
                pass
        step.fails = False
        with pytest.raises(StopAsyncIteration):
            await anext(running)
        waiting = engine.submit(chat("x", temperature=0, max_tokens=100))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.01)
        async for event in waiting:
            last = event
        assert last.usage.output_tokens == 100

    asyncio.run(main())


def test_a_reader_whose_loop_is_gone_is_cancelled(counted):
    engine, _ = counted

    async def abandon():
        await anext(engine.submit(chat("x", temperature=0, max_tokens=500)))

    asyncio.run(abandon())
    wait_for(lambda: engine.stats().running == 0)


def test_submissions_from_many_threads(engine):
    results = {}

    def work(number):
        results[number] = finish(engine.submit(chat("thread", seed=number, temperature=1.0, max_tokens=15)))[0]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in (0, 7, 19):
        assert results[number] == finish(engine.submit(chat("thread", seed=number, temperature=1.0, max_tokens=15)))[0]


def test_close_ends_everything(tiny_decoder, tiny_tokenizer):
    engine = Engine(tiny_decoder, tiny_tokenizer, EngineConfig(max_num_seqs=1))
    running, waiting = (engine.submit(chat("x", temperature=0, max_tokens=500)) for _ in range(2))
    next(running)
    engine.close()
    for generation in (running, waiting):
        with pytest.raises(EngineError, match="closed"):
            list(generation)
    with pytest.raises(EngineError, match="closed"):
        engine.submit(chat("x"))
    engine.close()
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.kv_tokens, stats.kv_blocks.used) == (0, 0, 0, 0)
    assert not engine._thread.is_alive()


def test_a_tokenizer_larger_than_the_model_is_refused(make_decoder, tiny_tokenizer):
    with pytest.raises(CheckpointError, match="512"):
        Engine(make_decoder("qwen2"), tiny_tokenizer)


@pytest.mark.parametrize("limit", [{"max_num_seqs": 0}, {"max_context": 0}, {"max_queue": -1}])
def test_limits_that_make_no_sense_are_refused(tiny_decoder, tiny_tokenizer, limit):
    with pytest.raises(ConfigError, match=next(iter(limit))):
        Engine(tiny_decoder, tiny_tokenizer, EngineConfig(**limit))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_generates_the_greedy_text_of_the_cpu(tiny_micro_directory: Path) -> None:
    texts = []
    for device in ("cpu", "cuda"):
        engine = Engine.from_directory(tiny_micro_directory, device=device, dtype="float32")
        request = GenerationRequest(
            model="tiny", prompt="the quick brown", sampling=SamplingParams(max_tokens=32, temperature=0)
        )
        texts.append("".join(event.text for event in engine.submit(request) if isinstance(event, TextDelta)))
        engine.close()
    assert texts[0] == texts[1]
