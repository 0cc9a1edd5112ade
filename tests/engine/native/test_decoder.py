"""The native step against the decoder's own forward pass."""

from __future__ import annotations

import multiprocessing
import os
import sys

import pytest
import torch
from tests.engine.decoders import random_decoder

from kilonova.engine.kv_cache import KVCache
from kilonova.engine.native import library
from kilonova.engine.runner import ModelRunner, StepTokens
from kilonova.models.decoder.model import Decoder
from kilonova.nn.quantized import QuantizedLinear

pytestmark = pytest.mark.skipif(
    not library.instruction_sets(), reason="the native kernels are not built for this machine"
)

VARIANTS = {
    "qwen3": {"tie_word_embeddings": True},
    "llama": {"model_type": "llama", "qk_norm": False},
    "llama-biased": {"model_type": "llama", "qk_norm": False, "qkv_bias": True, "output_bias": True},
    "qwen2": {"model_type": "qwen2", "qk_norm": False, "qkv_bias": True},
    "mistral-window": {"model_type": "mistral", "qk_norm": False, "layer_windows": (21, 21)},
    "seven-queries-a-key": {"num_attention_heads": 7, "num_key_value_heads": 1},
    "mixed-windows": {"layer_windows": (None, 21)},
}


def runner_of(model: Decoder, dtype: torch.dtype = torch.float32, **options) -> ModelRunner:
    runner = ModelRunner(model, KVCache(model.config, dtype, "cpu", max_num_seqs=8), **options)
    assert (runner.instructions is not None) == options.get("native", True)
    return runner


def random_ids(count: int, seed: int = 0) -> list[int]:
    return torch.randint(101, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def expected_logits(model: Decoder, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]))[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_after_a_prompt(variant):
    model = random_decoder(**VARIANTS[variant])
    ids = [random_ids(90), random_ids(75, seed=1)]
    expected = [expected_logits(model, one) for one in ids]
    runner = runner_of(model)
    for slot, one in enumerate(ids):
        runner.step([StepTokens(slot, 0, one[:40])])
    for position in range(40, 75):
        logits = runner.logits(
            runner.step([StepTokens(slot, position, [one[position]]) for slot, one in enumerate(ids)])
        )
        torch.testing.assert_close(logits, torch.stack([one[position] for one in expected]), rtol=1e-4, atol=1e-4)


def test_several_tokens_of_a_sequence_see_each_other():
    model = random_decoder()
    ids = random_ids(60)
    expected = expected_logits(model, ids)
    runner = runner_of(model)
    runner.step([StepTokens(0, 0, ids[:30])])
    for start in range(30, 60, 6):
        logits = runner.logits(runner.step([StepTokens(0, start, ids[start : start + 6])]))
        torch.testing.assert_close(logits, expected[start : start + 6], rtol=1e-4, atol=1e-4)


def test_attention_in_several_pieces():
    model = random_decoder(layer_windows=(None, 700))
    ids = random_ids(1400)
    expected = expected_logits(model, ids)
    runner = runner_of(model)
    runner.step([StepTokens(0, 0, ids[:-8])])
    for position in range(1392, 1400):
        logits = runner.logits(runner.step([StepTokens(0, position, [ids[position]])]))
        torch.testing.assert_close(logits[0], expected[position], rtol=1e-4, atol=1e-4)


def test_a_token_does_not_depend_on_its_batch_or_on_threads():
    model = random_decoder()
    lengths = (33, 600, 47, 120, 18)
    ids = [random_ids(length + 5, seed=length) for length in lengths]
    results = []
    threads = torch.get_num_threads()
    try:
        for alone, count in ((True, 1), (False, 1), (False, 2), (True, 2)):
            torch.set_num_threads(count)
            runner = runner_of(random_decoder())
            for slot, one in enumerate(ids):
                runner.step([StepTokens(slot, 0, one[:-5])])
            rows = []
            for step in range(5):
                tokens = [StepTokens(slot, len(one) - 5 + step, [one[step - 5]]) for slot, one in enumerate(ids)]
                parts = [runner.step([token]) for token in tokens] if alone else [runner.step(tokens)]
                rows.append(torch.cat(parts))
            results.append(torch.stack(rows))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    torch.testing.assert_close(results[1], results[2], rtol=1e-5, atol=1e-5)
    assert torch.equal(results[2], results[3])
    assert model.config.vocab_size == 101


def test_bfloat16_weights_and_cache():
    ids = random_ids(60)
    expected = expected_logits(random_decoder().bfloat16().float(), ids)
    runner = runner_of(random_decoder().bfloat16(), torch.bfloat16)
    runner.step([StepTokens(0, 0, ids[:30])])
    for position in range(30, 60):
        logits = runner.logits(runner.step([StepTokens(0, position, [ids[position]])]))
    # Keys and values have eight bits of precision.
    torch.testing.assert_close(logits[0], expected[-1], rtol=0.05, atol=0.05 * expected.std().item())


@pytest.mark.parametrize("variant", ["qwen3", "llama-biased"])
def test_bfloat16_weights_computed_with_in_float32(variant):
    model = random_decoder(**VARIANTS[variant]).bfloat16()
    ids = random_ids(60)
    expected = expected_logits(random_decoder(**VARIANTS[variant]).bfloat16().float(), ids)
    for native in (True, False):
        copy = random_decoder(**VARIANTS[variant])
        copy.load_state_dict(model.state_dict())
        runner = runner_of(copy.bfloat16(), native=native)
        prompt = runner.logits(runner.step([StepTokens(0, 0, ids[:30])]))
        torch.testing.assert_close(prompt, expected[:30], rtol=1e-4, atol=1e-4)
        for position in range(30, 60):
            logits = runner.logits(runner.step([StepTokens(0, position, [ids[position]])]))
            torch.testing.assert_close(logits[0], expected[position], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("number_format", "group_size"), [("int8", None), ("int4", 32), ("int4", 64), ("fp8", None)])
def test_quantised_layers(number_format, group_size):
    model = random_decoder(intermediate_size=128)
    for layer in model.model.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, child in list(block.named_children()):
                if isinstance(child, torch.nn.Linear):
                    setattr(block, name, QuantizedLinear.from_linear(child, number_format, group_size))
    ids = random_ids(60)
    expected = expected_logits(model, ids)
    runner = runner_of(model, native=number_format != "fp8")
    runner.step([StepTokens(0, 0, ids[:30])])
    for position in range(30, 60):
        logits = runner.logits(runner.step([StepTokens(0, position, [ids[position]])]))
        torch.testing.assert_close(logits[0], expected[position], rtol=1e-2, atol=1e-2)


def test_what_the_kernels_cannot_run_goes_through_pytorch():
    for changes in ({"head_dim": 8}, {"hidden_size": 60}):
        model = random_decoder(**changes)
        ids = random_ids(20)
        runner = ModelRunner(model)
        assert runner.instructions is None
        logits = runner.logits(runner.step([StepTokens(0, 0, ids)]))
        torch.testing.assert_close(logits, expected_logits(model, ids), rtol=1e-4, atol=1e-4)


def _fork_and_compute() -> None:
    torch.set_num_threads(2)
    runner, ids = runner_of(random_decoder()), random_ids(10)
    hidden = runner.step([StepTokens(0, 0, ids)])
    child = os.fork()
    if not child:
        again = runner.step([StepTokens(1, 0, ids)])
        os._exit(0 if torch.equal(hidden, again) else 1)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def test_a_forked_process_computes_with_threads_of_its_own():
    # In a new process: PyTorch's own threads, which other tests may have started in this one, do not outlive a fork.
    process = multiprocessing.get_context("spawn").Process(target=_fork_and_compute)
    process.start()
    process.join(timeout=120)
    try:
        assert process.exitcode == 0
    finally:
        process.kill()
