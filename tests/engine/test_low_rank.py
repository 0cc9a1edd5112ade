"""Steps with adapters against the decoder with each adapter merged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.engine.adapters import merged, write_adapters
from tests.engine.decoders import random_decoder

from kilonova.engine.kv_cache import KVCache
from kilonova.engine.low_rank import AdapterWeights, adaptable_shapes
from kilonova.engine.native import library
from kilonova.engine.runner import ModelRunner, StepTokens
from kilonova.models.adapter import AdapterConfig, adapter_layers, attach_adapter, read_adapter, save_adapter
from kilonova.models.decoder.model import Decoder
from kilonova.nn.quantized import QuantizedLinear

COUNT = 16
VARIANTS = {
    "qwen3": {"tie_word_embeddings": True},
    "llama-biased": {"model_type": "llama", "qk_norm": False, "qkv_bias": True, "output_bias": True},
    # 56 is no multiple of the rows that are added to at a time; avx2 alone runs it.
    "ragged": {"hidden_size": 56, "intermediate_size": 72},
}
needs_kernels = pytest.mark.skipif(not library.instruction_sets(), reason="the native kernels are not built here")


def make(variant: str = "qwen3") -> Decoder:
    return random_decoder(**VARIANTS[variant])


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_adapters(make, tmp_path_factory.mktemp("adapters"), COUNT)


def runner_of(model: Decoder, dtype: torch.dtype = torch.float32, *, native: bool) -> ModelRunner:
    runner = ModelRunner(model, KVCache(model.config, dtype, "cpu", max_num_seqs=COUNT + 1), native=native)
    assert (runner.instructions is not None) == native
    return runner


def load(runner: ModelRunner, path: Path) -> AdapterWeights:
    return runner.adapter(read_adapter(path, runner.adaptable_shapes))


def random_ids(count: int, seed: int = 0) -> list[int]:
    return torch.randint(101, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.no_grad()
def expected_logits(model: Decoder, ids: list[int]) -> torch.Tensor:
    """Logits `[tokens, vocab]` in float64."""
    return model.double()(torch.tensor([ids]))[0]


def run_together(runner: ModelRunner, weights: list[AdapterWeights | None], ids: list[list[int]]) -> torch.Tensor:
    """Logits `[sequences, tokens, vocab]`: a long part, then parts of five tokens, then single ones."""
    parts = []
    ends = [20, *range(25, 41, 5), *range(41, len(ids[0]) + 1)]
    for start, end in zip([0, *ends], ends, strict=False):
        tokens = [StepTokens(slot, start, one[start:end], weights[slot]) for slot, one in enumerate(ids)]
        parts.append(runner.logits(runner.step(tokens)).unflatten(0, (len(ids), end - start)))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_kernels), False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_sequence_has_its_adapter(variant, native, tmp_path):
    if variant == "ragged" and native and library.instruction_sets()[0] != "avx2":
        pytest.skip("vectors of this machine are longer")
    paths = write_adapters(lambda: make(variant), tmp_path, COUNT)
    ids = [random_ids(45, seed) for seed in range(COUNT + 1)]
    expected = [expected_logits(merged(make(variant), path), one) for path, one in zip(paths, ids, strict=False)]
    expected.append(expected_logits(make(variant), ids[-1]))
    runner = runner_of(make(variant), native=native)
    found = run_together(runner, [*(load(runner, path) for path in paths), None], ids)
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-4, atol=1e-4)
    plain = expected_logits(make(variant), ids[0])
    assert (plain - expected[0]).abs().max() > 0.1 * plain.abs().max()


@needs_kernels
@pytest.mark.parametrize("instructions", library.instruction_sets())
def test_each_instruction_set(adapters, instructions, monkeypatch):
    context = library.Context
    monkeypatch.setattr("kilonova.engine.runner.Context", lambda: context(instructions))
    ids = [random_ids(45, seed) for seed in range(COUNT)]
    models = [merged(make(), path) for path in adapters]
    expected = torch.stack([expected_logits(model, one) for model, one in zip(models, ids, strict=True)])
    runner = runner_of(make(), native=True)
    assert runner.instructions == instructions
    found = run_together(runner, [load(runner, path) for path in adapters], ids)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@needs_kernels
def test_a_token_does_not_depend_on_its_batch_or_on_threads(adapters):
    """To the last bit."""
    ids = [random_ids(30, seed) for seed in range(6)]
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for together in (True, False):
                runner = runner_of(make(), native=True)
                # Neighbours with the same adapter are computed as one.
                loaded = [load(runner, adapters[number]) for number in (0, 0, 3, 3, 6)]
                weights = [*loaded[:1], *loaded[:1], *loaded[2:3], *loaded[2:3], loaded[4], None]
                tokens = [StepTokens(slot, 0, one[:10], weights[slot]) for slot, one in enumerate(ids)]
                parts = [runner.step(tokens)] if together else [runner.step([token]) for token in tokens]
                results.append(torch.cat(parts))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], result) for result in results[1:])


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_kernels), False])
@pytest.mark.parametrize(("number_format", "group_size"), [("int8", None), ("int4", 32), ("fp8", None)])
def test_a_quantised_base(adapters, number_format, group_size, native):
    if number_format == "fp8" and native:
        pytest.skip("the kernels have no fp8")

    def quantized(dequantized: bool) -> Decoder:
        model = make()
        for layer in model.model.layers:
            for block in (layer.self_attn, layer.mlp):
                for name, child in list(block.named_children()):
                    if isinstance(child, torch.nn.Linear):
                        replacement = QuantizedLinear.from_linear(child, number_format, group_size)
                        if dequantized:
                            child.weight.data = replacement.dequantize(torch.float32)
                        else:
                            setattr(block, name, replacement)
        return model

    ids = [random_ids(45, seed) for seed in range(COUNT)]
    expected = torch.stack(
        [expected_logits(merged(quantized(True), path), one) for path, one in zip(adapters, ids, strict=True)]
    )
    runner = runner_of(quantized(False), native=native)
    assert runner.adaptable_shapes == adaptable_shapes(make())
    found = run_together(runner, [load(runner, path) for path in adapters], ids).double()
    # The kernels' inputs have thirteen bits.
    assert (found - expected).norm() < (2e-3 if native else 1e-5) * expected.norm()


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_kernels), False])
@pytest.mark.parametrize("cache_dtype", [torch.bfloat16, torch.float32])
def test_bfloat16(adapters, native, cache_dtype):
    ids = [random_ids(45, seed) for seed in range(COUNT)]
    expected = torch.stack(
        [expected_logits(merged(make().bfloat16().float(), path), one) for path, one in zip(adapters, ids, strict=True)]
    )
    runner = runner_of(make().bfloat16(), cache_dtype, native=native)
    weights = [load(runner, path) for path in adapters]
    found = run_together(runner, weights, ids).double()
    assert (found - expected).norm() < 0.03 * expected.norm()
    whole = load(runner_of(make(), native=native), adapters[0])
    assert 2 * weights[0].nbytes == whole.nbytes


def test_attention_of_a_mixture_of_experts(make_decoder, tmp_path):
    def make_mixture() -> Decoder:
        return make_decoder("qwen3_moe")

    config = AdapterConfig(rank=3, target_modules=("q_proj", "o_proj"))
    decoder = make_mixture()
    attach_adapter(decoder, config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for layer in adapter_layers(decoder).values():
            layer.lora_B.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    save_adapter(decoder, tmp_path, base="base")
    ids = torch.randint(97, (30,), generator=torch.Generator().manual_seed(0)).tolist()
    runner = ModelRunner(make_mixture())
    logits = runner.logits(runner.step([StepTokens(0, 0, ids, load(runner, tmp_path))]))
    expected = expected_logits(merged(make_mixture(), tmp_path), ids)
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-4)
