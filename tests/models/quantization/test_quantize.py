from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from kilonova.core.errors import ConfigError, DataError
from kilonova.models.calibration import LayerInputs, calibration_tokens
from kilonova.models.checkpoint import load_decoder
from kilonova.models.decoder.model import Decoder
from kilonova.models.quantization.gptq import InputStatistics, round_weight
from kilonova.models.quantization.quantize import QuantizationConfig, quantize_decoder, quantize_directory
from kilonova.nn.quantized import QuantizedLinear
from kilonova.text.tokenizer import Tokenizer

GPTQ = QuantizationConfig(number_format="int4", method="gptq", group_size=32)
LEAVES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def inputs_of(decoder: Decoder, name: str, tokens: torch.Tensor) -> torch.Tensor:
    """What the module `name` receives in a plain forward pass, `[N, in]`."""
    seen = []
    handle = decoder.get_submodule(name).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        decoder(tokens)
    handle.remove()
    return seen[0].flatten(0, 1)


@pytest.mark.parametrize("name", ["self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"])
def test_a_layer_is_rounded_for_what_the_rounded_ones_before_it_make(make_decoder, name) -> None:
    tokens = torch.randint(97, (20, 32), generator=torch.Generator().manual_seed(2))
    done = make_decoder("llama")
    quantize_decoder(done, GPTQ, tokens)
    # The same model as it stood just before this layer's turn.
    upto = make_decoder("llama")
    order = [f"{block}.{leaf}" for block, leaves in (("self_attn", LEAVES[:4]), ("mlp", LEAVES[4:])) for leaf in leaves]
    before = {"self_attn.k_proj": 0, "self_attn.o_proj": 3, "mlp.up_proj": 4, "mlp.down_proj": 6}[name]
    for layer, names in ((0, order), (1, order[:before])):
        for each in names:
            owner = upto.get_submodule(f"model.layers.{layer}.{each.rpartition('.')[0]}")
            setattr(owner, each.rpartition(".")[2], done.get_submodule(f"model.layers.{layer}.{each}"))

    x = inputs_of(upto, f"model.layers.1.{name}", tokens)
    linear = make_decoder("llama").get_submodule(f"model.layers.1.{name}")
    values, scale = round_weight(
        linear.weight.detach(), InputStatistics.from_hessian(x.t() @ x / len(x)), "int4", 32, torch.float32
    )

    found = done.get_submodule(f"model.layers.1.{name}")
    torch.testing.assert_close(found.scale, scale, rtol=1e-3, atol=0)
    assert (found.values() == values).double().mean() > 0.99
    assert found.bias is None or torch.equal(found.bias, linear.bias)


def test_gptq_follows_the_model_closer_than_rounding_to_nearest(layout, make_decoder, input_ids) -> None:
    tokens = torch.randint(97, (32, 40), generator=torch.Generator().manual_seed(2))
    plain, nearest, gptq = (make_decoder(layout) for _ in range(3))
    quantize_decoder(nearest, QuantizationConfig(number_format="int4", group_size=32))
    quantize_decoder(gptq, GPTQ, tokens)

    with torch.no_grad():
        errors = [(model(input_ids) - plain(input_ids)).square().mean() for model in (gptq, nearest)]
    assert errors[0] < errors[1]


def test_layers_are_computed_in_a_fast_number_format_and_stored_in_their_own(make_decoder, monkeypatch) -> None:
    monkeypatch.setattr("kilonova.models.calibration.has_fast_bfloat16", lambda _: False)
    tokens = torch.randint(97, (4, 32), generator=torch.Generator().manual_seed(2))
    decoder = make_decoder("llama", torch.bfloat16)
    before = {name: parameter.clone() for name, parameter in decoder.named_parameters()}

    assert LayerInputs(decoder, tokens).batches[0].dtype == torch.float32
    quantize_decoder(decoder, GPTQ, tokens)

    assert all(torch.equal(before[name], parameter) for name, parameter in decoder.named_parameters())
    assert decoder.model.layers[2].mlp.up_proj.scale.dtype == torch.bfloat16
    assert decoder(tokens).dtype == torch.bfloat16


def test_experts_stay_as_they_are(make_decoder) -> None:
    decoder = make_decoder("qwen3_moe")
    quantize_decoder(decoder, QuantizationConfig(number_format="int8"))

    quantised = [name for name, module in decoder.named_modules() if isinstance(module, QuantizedLinear)]
    assert len(quantised) == 3 * 4 + 3
    assert isinstance(decoder.model.layers[0].mlp.gate, nn.Linear)
    with pytest.raises(ConfigError, match="quantised already"):
        quantize_decoder(decoder, QuantizationConfig(number_format="int8"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"number_format": "int3"}, "number_format: 'int3' is not one of int8, int4, fp8"),
        ({"method": "awq"}, "method: 'awq' is not one of rtn, gptq"),
        ({"number_format": "int4", "group_size": 48}, "group_size: 48 is not one of 32, 64, 128"),
        ({"number_format": "int4"}, "group_size: None is not one of"),
        ({"number_format": "fp8", "group_size": 64}, "group_size: fp8 has one scale a row"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, message) -> None:
    with pytest.raises(ConfigError, match=message):
        QuantizationConfig(**fields)


def test_a_group_that_does_not_fit_leaves_the_model_alone(make_decoder) -> None:
    decoder = make_decoder("llama")
    with pytest.raises(ConfigError, match=r"model.layers.0.self_attn.q_proj: 64 inputs .* group size 128"):
        quantize_decoder(decoder, QuantizationConfig(number_format="int4", group_size=128))
    assert isinstance(decoder.model.layers[0].self_attn.q_proj, nn.Linear)


def test_directories_keep_tokenizer_and_template(tiny_micro_directory, tmp_path) -> None:
    calibration = tmp_path / "calibration.jsonl"
    rows = [{"messages": [{"role": "user", "content": f"the quick {n}"}, {"role": "assistant", "content": "fox"}]}
            for n in range(60)]  # fmt: skip
    calibration.write_text("\n".join(json.dumps(row) for row in rows))
    output = tmp_path / "out"
    options = {"calibration": calibration, "sequences": 8, "length": 64, "quiet": True}
    quantize_directory(tiny_micro_directory, output, GPTQ, **options)

    assert load_decoder(output).model.layers[1].mlp.gate_proj.number_format == "int4"
    text = "seven wizards"
    assert Tokenizer.from_directory(output).encode(text) == Tokenizer.from_directory(tiny_micro_directory).encode(text)
    assert (output / "chat_template.jinja").read_bytes() == (tiny_micro_directory / "chat_template.jinja").read_bytes()
    with pytest.raises(ConfigError, match="already exists and is not an empty directory"):
        quantize_directory(tiny_micro_directory, output, GPTQ, quiet=True)
    with pytest.raises(ConfigError, match="quantised already"):
        quantize_directory(output, tmp_path / "twice", GPTQ, **options)
    assert not (tmp_path / "twice").exists()


def test_calibration_text_is_spread_evenly(tiny_tokenizer_directory, tmp_path) -> None:
    tokenizer = Tokenizer.from_directory(tiny_tokenizer_directory)
    file = tmp_path / "text.txt"
    file.write_text(" ".join(str(number) for number in range(2000)))
    everything = tokenizer.encode(file.read_text())

    tokens = calibration_tokens(tokenizer, file, sequences=4, length=16)

    pieces = len(everything) // 16
    for place, row in enumerate(tokens.tolist()):
        start = place * pieces // 4 * 16
        assert row == everything[start : start + 16]
    default = calibration_tokens(tokenizer, None, sequences=3, length=32)
    assert default.shape == (3, 32)
    file.write_text("short")
    with pytest.raises(DataError, match="make no sequence of 16"):
        calibration_tokens(tokenizer, file, length=16)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"body": "x"}\n')
    with pytest.raises(DataError, match="neither text nor messages"):
        calibration_tokens(tokenizer, rows, length=16)
