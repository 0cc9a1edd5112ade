"""An engine with many adapters: each request's tokens are those of the model with its adapter merged."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.engine.adapters import merged, write_adapters
from tests.engine.conftest import raw

from kilonova.core.errors import CheckpointError, ConfigError, EngineError, InvalidRequest, ModelNotFound
from kilonova.core.types import Finished, GenerationEvent, TextDelta
from kilonova.engine import runner
from kilonova.engine.config import EngineConfig
from kilonova.engine.engine import Engine
from kilonova.engine.generation import Generation
from kilonova.models.adapter import AdapterConfig, attach_adapter, save_adapter
from kilonova.models.checkpoint import save_decoder
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.text.tokenizer import Tokenizer

COUNT = 16
NEW_TOKENS = 48
PROMPTS = [tuple(range(7 + 3 * number, 7 + 3 * number + 36)) for number in range(COUNT)]


def make() -> Decoder:
    config = DecoderConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        initializer_range=0.25,
    )
    model = Decoder(config)
    model.init_weights(torch.Generator().manual_seed(0))
    return model.eval()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_adapters(make, tmp_path_factory.mktemp("adapters"), COUNT)


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_directory: Path) -> Tokenizer:
    """One that never stops."""
    tokenizer = Tokenizer.from_directory(tiny_tokenizer_directory)
    tokenizer.stop_token_ids = frozenset()
    return tokenizer


@pytest.fixture(scope="module")
def expected(paths: list[Path], tokenizer: Tokenizer) -> list[list[int]]:
    """What each merged model says to its prompt; last, what the base says to the first prompt."""
    results = []
    for number, prompt in enumerate([*PROMPTS, PROMPTS[0]]):
        engine = Engine(merged(make(), paths[number]) if number < COUNT else make(), tokenizer)
        try:
            results.append(tokens_of(engine.submit(raw(prompt, temperature=0, max_tokens=NEW_TOKENS, logprobs=0))))
        finally:
            engine.close()
    assert len({tuple(result) for result in results}) == COUNT + 1
    return results


@pytest.fixture
def start(tokenizer: Tokenizer, paths: list[Path]) -> Iterator[Callable[..., Engine]]:
    """Starts engines that know the first `known` adapters by their numbers."""
    engines: list[Engine] = []

    def start(known: int = COUNT, **limits: int) -> Engine:
        engines.append(Engine(make(), tokenizer, EngineConfig(**limits)))
        for number in range(known):
            engines[-1].add_adapter(str(number), paths[number])
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def ask(engine: Engine, prompt: tuple[int, ...], adapter: int | None, max_tokens: int = NEW_TOKENS) -> Generation:
    request = raw(prompt, temperature=0, max_tokens=max_tokens, logprobs=0)
    return engine.submit(replace(request, adapter="" if adapter is None else str(adapter)))


def tokens_of(events: Generation | list[GenerationEvent]) -> list[int]:
    return [entry.token_id for event in events if isinstance(event, TextDelta) for entry in event.logprobs]


def loaded(engine: Engine) -> set[str]:
    return {name for name, use in engine.stats().adapters.items() if use.loaded}


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("chunk", [512, 9])
def test_sixteen_at_once_beside_the_base(start, expected, native, chunk, monkeypatch):
    if not native:
        monkeypatch.setattr(runner, "instruction_sets", tuple)
    engine = start()
    engine._scheduler._prefill_tokens = engine._scheduler._mixed_prefill_tokens = chunk
    generations = [ask(engine, prompt, number) for number, prompt in enumerate(PROMPTS)]
    generations.append(ask(engine, PROMPTS[0], None))
    assert [tokens_of(generation) for generation in generations] == expected
    assert len(loaded(engine)) == COUNT
    assert engine._scheduler.blocks.is_whole()


def test_a_prefix_is_the_adapters_own(start, expected):
    engine = start()
    for adapter, cached in ((0, 0), (1, 0), (None, 0), (0, 32), (1, 32), (None, 32)):
        events = list(ask(engine, PROMPTS[0], adapter))
        assert events[-1].usage.cache_read_input_tokens == cached
        if adapter != 1:
            assert tokens_of(events) == expected[-1 if adapter is None else adapter]
    # Another directory under the same name does not find what the first has left.
    engine.remove_adapter("0")
    engine.add_adapter("0", engine._adapters.get("2").directory)
    events = list(ask(engine, PROMPTS[0], 0))
    assert events[-1].usage.cache_read_input_tokens == 0
    assert tokens_of(events) == tokens_of(ask(engine, PROMPTS[0], 2))


def test_adapters_take_turns_where_there_is_room_for_few(start, expected):
    engine = start(max_loras=3, max_num_seqs=8)
    generations = [ask(engine, prompt, number) for number, prompt in enumerate(PROMPTS)]
    generations.append(ask(engine, PROMPTS[0], None))
    assert engine.stats().waiting > 0
    assert [tokens_of(generation) for generation in generations] == expected
    assert len(loaded(engine)) == 3
    # Again, from the last to the first.
    for number in reversed(range(COUNT)):
        assert tokens_of(ask(engine, PROMPTS[number], number)) == expected[number]
    assert loaded(engine) == {"0", "1", "2"}
    assert all(use.running == use.waiting == 0 for use in engine.stats().adapters.values())


def test_the_least_recently_used_is_dropped(start):
    engine = start(known=4, max_loras=2)
    for adapter, kept in ((0, "0"), (1, "01"), (0, "01"), (2, "02"), (3, "23")):
        list(ask(engine, PROMPTS[0], adapter, 2))
        assert loaded(engine) == set(kept)


def test_one_in_use_is_neither_dropped_nor_removed(start):
    engine = start(known=2, max_loras=1)
    running = ask(engine, PROMPTS[0], 0, 200)
    events = iter(running)
    next(events)
    waiting = ask(engine, PROMPTS[1], 1, 4)
    also_waiting = ask(engine, PROMPTS[1], 1, 4)
    # It does not overtake those that wait for room.
    last = ask(engine, PROMPTS[2], 0, 4)
    use = engine.stats().adapters
    assert (use["0"], use["1"]) == ((True, 1, 1), (False, 0, 2))
    for name in "01":
        with pytest.raises(InvalidRequest, match=f"adapter '{name}' is in use by 2 requests"):
            engine.remove_adapter(name)
    waiting.cancel()
    running.cancel()
    assert len(tokens_of(also_waiting)) == 4
    assert len(tokens_of(last)) == 4
    assert list(waiting) == []
    engine.remove_adapter("0")
    assert loaded(engine) == set()
    with pytest.raises(ModelNotFound, match="no adapter '0'"):
        ask(engine, PROMPTS[0], 0)


def test_others_go_on_while_one_is_loaded(start, expected, monkeypatch):
    engine = start(known=1)
    read, begun, goes_on = engine._adapters._read, threading.Event(), threading.Event()

    def slow(directory):
        begun.set()
        assert goes_on.wait(30)
        return read(directory)

    monkeypatch.setattr(engine._adapters, "_read", slow)
    waiting = ask(engine, PROMPTS[0], 0)
    assert begun.wait(30)
    assert tokens_of(ask(engine, PROMPTS[0], None)) == expected[-1]
    assert engine.stats().adapters["0"] == (False, 0, 1)
    with pytest.raises(InvalidRequest):
        engine.remove_adapter("0")
    goes_on.set()
    assert tokens_of(waiting) == expected[0]


def test_what_cannot_be_loaded_is_told_and_tried_again(start, expected, paths, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in paths[0].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    engine = start(known=0)
    with pytest.raises(ModelNotFound, match="no adapter 'copy': the engine has none"):
        engine.submit(replace(raw(PROMPTS[0]), adapter="copy"))
    engine.add_adapter("copy", copy)
    with pytest.raises(ConfigError, match="already"):
        engine.add_adapter("copy", copy)
    weights = copy / "adapter_model.safetensors"
    weights.rename(copy / "away")
    request = replace(raw(PROMPTS[0], temperature=0, max_tokens=NEW_TOKENS, logprobs=0), adapter="copy")
    generations = [engine.submit(request) for _ in range(3)]
    for generation in generations:
        with pytest.raises(EngineError, match=r"'copy' cannot be loaded.*the file is missing") as caught:
            list(generation)
        assert isinstance(caught.value.__cause__, CheckpointError)
    (copy / "away").rename(weights)
    assert tokens_of(engine.submit(request)) == expected[0]


def test_what_is_refused(start, make_decoder, tmp_path):
    engine = start(known=0, max_lora_rank=4)
    for name, changes in {"high": {"rank": 5}, "dora": {"kind": "dora", "rank": 2}}.items():
        decoder = make()
        attach_adapter(decoder, AdapterConfig(**changes))
        save_adapter(decoder, tmp_path / name, base="base")
    for name, other in {"other": make_decoder("llama-biased"), "changed": make()}.items():
        attach_adapter(other, AdapterConfig(rank=2))
        save_adapter(other, tmp_path / name, base="base")
    with pytest.raises(ConfigError, match="rank 5 is above max_lora_rank, 4"):
        engine.add_adapter("high", tmp_path / "high")
    with pytest.raises(ConfigError, match="DoRA is not served beside its base; `kilonova models merge`"):
        engine.add_adapter("dora", tmp_path / "dora")
    with pytest.raises(CheckpointError, match=r"layers.2.mlp.down_proj is no linear layer of the model"):
        engine.add_adapter("other", tmp_path / "other")
    with pytest.raises(CheckpointError, match="missing"):
        engine.add_adapter("nothing", tmp_path)
    config = json.loads((tmp_path / "changed" / "adapter_config.json").read_text())
    wrong = {"r": 3, "rank_pattern": {"q_proj": 3}, "modules_to_save": ["lm_head"], "peft_type": "IA3"}
    for key, value in wrong.items():
        (tmp_path / "changed" / "adapter_config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(CheckpointError, match=r"ask for \[3, \d+\]" if key == "r" else key):
            engine.add_adapter("changed", tmp_path / "changed")
    for name in ("max_loras", "max_lora_rank"):
        with pytest.raises(ConfigError, match=name):
            start(known=0, **{name: 0})


def test_one_that_is_removed_while_a_request_is_prepared(start, paths, monkeypatch):
    engine = start(known=1)
    submit = engine._adapters.submit

    def replaced(request):
        engine.remove_adapter("0")
        engine.add_adapter("0", paths[1])
        submit(request)

    monkeypatch.setattr(engine._adapters, "submit", replaced)
    with pytest.raises(ModelNotFound, match="is another one now"):
        ask(engine, PROMPTS[0], 0)
    monkeypatch.setattr(engine._adapters, "submit", lambda request: (engine.remove_adapter("0"), submit(request)))
    with pytest.raises(ModelNotFound, match="the engine has none"):
        ask(engine, PROMPTS[0], 0)
    assert engine.stats().waiting == 0


def test_closing_ends_those_that_wait(start):
    engine = start(known=2, max_loras=1)
    running = ask(engine, PROMPTS[0], 0, 200)
    next(iter(running))
    waiting = ask(engine, PROMPTS[1], 1)
    engine.close()
    for generation in (running, waiting):
        with pytest.raises(EngineError, match="closed"):
            list(generation)


def test_random_requests_leave_everything_free(start):
    engine = start(known=6, max_loras=2, max_num_seqs=3)
    generator = torch.Generator().manual_seed(0)
    generations = []
    for _ in range(120):
        adapter, action, length = torch.randint(7, (3,), generator=generator).tolist()
        generations.append(ask(engine, PROMPTS[length], adapter if adapter < 6 else None, 1 + 2 * length))
        if action == 0:
            generations[int(torch.randint(len(generations), (1,), generator=generator))].cancel()
        elif action < 3:
            list(generations[int(torch.randint(len(generations), (1,), generator=generator))])
    for generation in generations:
        list(generation)
    stats = engine.stats()
    assert stats.running == stats.waiting == 0
    assert all((use.running, use.waiting) == (0, 0) for use in stats.adapters.values())
    assert len(loaded(engine)) == 2
    assert engine._scheduler.blocks.is_whole()


def test_pefts_own_adapters_give_pefts_own_tokens(tokenizer, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    save_decoder(make(), tmp_path / "base")

    def base():
        return AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)

    configs = {
        "attention": LoraConfig(r=8, lora_alpha=12, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
        "all": LoraConfig(r=5, lora_alpha=5, target_modules="all-linear", use_rslora=True, init_lora_weights=False),
        "layer": LoraConfig(r=64, lora_alpha=64, target_modules=["gate_proj"], layers_to_transform=[1]),
    }
    engine = Engine(make(), tokenizer)
    try:
        expected = []
        for name, config in configs.items():
            model = get_peft_model(base(), config)
            torch.manual_seed(4)
            for parameter_name, parameter in model.named_parameters():
                if "lora_B" in parameter_name:
                    torch.nn.init.normal_(parameter, std=0.15)
            model.save_pretrained(tmp_path / name)
            engine.add_adapter(name, tmp_path / name)
            model = PeftModel.from_pretrained(base(), tmp_path / name).eval()
            output = model.generate(
                input_ids=torch.tensor([PROMPTS[0]]),
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                eos_token_id=None,
                pad_token_id=0,
            )
            expected.append(output[0, len(PROMPTS[0]) :].tolist())
        request = raw(PROMPTS[0], temperature=0, max_tokens=NEW_TOKENS, logprobs=0)
        generations = [engine.submit(replace(request, adapter=name)) for name in configs]
        assert [tokens_of(generation) for generation in generations] == expected
        plain = list(engine.submit(request))
        assert isinstance(plain[-1], Finished)
        assert tokens_of(plain) not in expected
    finally:
        engine.close()
