from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.engine.conftest import raw

from kilonova.core.errors import ConfigError
from kilonova.core.types import PromptProcessed
from kilonova.engine.config import EngineConfig
from kilonova.engine.engine import Engine
from kilonova.engine.rounding import round_weights
from kilonova.models.decoder.model import Decoder
from kilonova.nn.quantized import QuantizedLinear


@pytest.fixture
def model(tiny_decoder: Decoder) -> Decoder:
    """The tiny decoder with feed-forwards that 32 divides."""
    model = Decoder(replace(tiny_decoder.config, intermediate_size=96))
    model.init_weights(torch.Generator().manual_seed(2))
    return model.eval()


def prompt_logprobs(engine: Engine) -> list[float]:
    request = raw(tuple(range(50, 90)), max_tokens=0, prompt_logprobs=0)
    (report,) = [event for event in engine.submit(request) if isinstance(event, PromptProcessed)]
    return [entry.logprob for entry in report.logprobs if entry is not None]


@pytest.mark.parametrize(("quantization", "bits"), [("int8", 8), ("int4", 4)])
def test_every_linear_layer_is_rounded(model, quantization, bits):
    before = {
        name: module.weight.detach().clone()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    round_weights(model, quantization)
    assert not any(isinstance(module, torch.nn.Linear) for module in model.modules())
    for name, weight in before.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, QuantizedLinear)
        assert layer.bits == (8 if name == "lm_head" else bits)
        # Half a step of the largest value, twice that where four bits clip it.
        step = weight.abs().max() / (127 if layer.bits == 8 else 7)
        assert (layer.dequantize(torch.float32) - weight).abs().max() < 2.5 * step


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_an_engine_of_rounded_weights_computes_with_them(model, tiny_tokenizer, quantization):
    rounded = Decoder(model.config)
    rounded.load_state_dict(model.state_dict())
    round_weights(rounded, quantization)
    with torch.no_grad():
        for name, module in list(rounded.named_modules()):
            if isinstance(module, QuantizedLinear):
                linear = torch.nn.Linear(module.in_features, module.out_features, bias=False)
                linear.weight.copy_(module.dequantize(torch.float32))
                owner, _, leaf = name.rpartition(".")
                setattr(rounded.get_submodule(owner), leaf, linear)
    engines = [
        Engine(rounded.eval(), tiny_tokenizer),
        Engine(model, tiny_tokenizer, EngineConfig(quantization=quantization)),
    ]
    try:
        plain, quantised = (prompt_logprobs(engine) for engine in engines)
        assert len(plain) == 39
        assert plain == pytest.approx(quantised, abs=1e-2)
    finally:
        for engine in engines:
            engine.close()


def test_what_cannot_be_rounded_is_named(model, make_decoder):
    with pytest.raises(ConfigError, match="'int3' is not one of int8, int4"):
        round_weights(model, "int3")
    with pytest.raises(ConfigError, match="layer 0 has experts"):
        round_weights(make_decoder("qwen3_moe"), "int8")
    with pytest.raises(ConfigError, match="a multiple of 32 inputs; a layer has 48"):
        round_weights(make_decoder("llama-biased"), "int4")
