"""What is written opens in transformers, what compressed-tensors writes opens here, everything else is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import load_file, save_file
from torch import nn

from kilonova.core.errors import CheckpointError
from kilonova.models.checkpoint import load_decoder, save_decoder, verify_checkpoint
from kilonova.models.library import export_model, import_model
from kilonova.models.quantization.quantize import QuantizationConfig, quantize_decoder
from kilonova.nn.quantized import QuantizedLinear, weight_scale

CONFIGS = {
    "int8": QuantizationConfig(number_format="int8"),
    "int4": QuantizationConfig(number_format="int4", group_size=32),
    "fp8": QuantizationConfig(number_format="fp8"),
}
DYNAMIC = {"num_bits": 8, "strategy": "token", "dynamic": True}
# Schemes that others publish: layout, weights, and activations of which we make nothing.
PUBLISHED: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "W8A8": ("int-quantized", {"num_bits": 8, "strategy": "channel"}, DYNAMIC),
    "W8A8-tensor": ("int-quantized", {"num_bits": 8, "strategy": "tensor"}, DYNAMIC),
    "W8A16": ("pack-quantized", {"num_bits": 8, "strategy": "group", "group_size": 64}, None),
    "W8A16-rows": ("pack-quantized", {"num_bits": 8, "strategy": "channel"}, None),
    "W4A16": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 64}, None),
    "W4A16-rows": ("pack-quantized", {"num_bits": 4, "strategy": "channel"}, None),
    "FP8_DYNAMIC": (
        "float-quantized",
        {"num_bits": 8, "type": "float", "strategy": "channel"},
        {**DYNAMIC, "type": "float"},
    ),
    "FP8": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}, None),
}


def change_quantization(directory: Path, change) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config["quantization_config"])
    path.write_text(json.dumps(config))


@pytest.fixture
def saved(make_decoder, tmp_path) -> Path:
    decoder = make_decoder("qwen3")
    quantize_decoder(decoder, CONFIGS["int4"])
    save_decoder(decoder, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_computes_the_same(name, layout, make_decoder, input_ids, transformers_logits, tmp_path):
    decoder = make_decoder(layout)
    plain = decoder(input_ids)
    quantize_decoder(decoder, CONFIGS[name])
    save_decoder(decoder, tmp_path, max_shard_bytes=64 * 1024)

    loaded = load_decoder(tmp_path)

    verify_checkpoint(tmp_path)
    with torch.no_grad():
        logits = loaded(input_ids)
        assert torch.equal(logits, decoder(input_ids))
    torch.testing.assert_close(logits, transformers_logits(tmp_path, input_ids), atol=1e-4, rtol=1e-4)
    assert 1e-4 < (logits - plain).abs().mean() < (0.6 if name == "int4" else 0.3) * plain.abs().mean()
    assert loaded.num_parameters() == make_decoder(layout).num_parameters()
    kept = {name for name, module in loaded.named_modules() if isinstance(module, nn.Linear)}
    assert kept == {"lm_head"} | {f"model.layers.{layer}.mlp.gate" for layer in loaded.config.moe_layers}


@pytest.mark.parametrize("name", CONFIGS)
def test_bfloat16_models_keep_their_scales(name, make_decoder, input_ids, tmp_path):
    decoder = make_decoder("llama", torch.bfloat16)
    quantize_decoder(decoder, CONFIGS[name])
    save_decoder(decoder, tmp_path / "first")
    loaded = load_decoder(tmp_path / "first")
    save_decoder(loaded, tmp_path / "second")

    first, second = (load_file(tmp_path / part / "model.safetensors") for part in ("first", "second"))

    assert first.keys() == second.keys()
    assert all(first[key].dtype == second[key].dtype for key in first)
    assert all(torch.equal(first[key].view(torch.uint8), second[key].view(torch.uint8)) for key in first)
    assert {tensor.dtype for key, tensor in first.items() if key.endswith("scale")} == {torch.bfloat16}
    assert loaded.model.embed_tokens.weight.dtype == torch.bfloat16
    wide = load_decoder(tmp_path / "first", dtype=torch.float32)
    assert wide.model.layers[0].self_attn.q_proj.scale.dtype == torch.float32
    assert wide(input_ids).dtype == torch.float32


def publish(decoder, directory: Path, name: str) -> dict[str, torch.Tensor]:
    """Write the model as compressed-tensors' own compressor has it; returns the weights it makes of that again."""
    layout, weights, activations = PUBLISHED[name]
    scheme = QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(**weights),
        input_activations=None if activations is None else QuantizationArgs(**activations),
    )
    compressor = BaseCompressor.get_value_from_registry(layout)
    save_decoder(decoder, directory)
    tensors = load_file(directory / "model.safetensors")
    decompressed = {}
    for key in [key for key in tensors if key.endswith("_proj.weight")]:
        weight, owner = tensors.pop(key), key.removesuffix(".weight")
        number_format = "fp8" if weights.get("type") == "float" else f"int{weights['num_bits']}"
        scale = weight_scale(weight, number_format, weights.get("group_size"))
        state = {"weight": weight, "weight_scale": scale.amax()[None] if weights["strategy"] == "tensor" else scale}
        compressed = compressor.compress(state, scheme)
        decompressed[owner] = compressor.decompress(compressed, scheme)["weight"]
        tensors |= {f"{owner}.{leaf}": tensor for leaf, tensor in compressed.items()}
        if activations is not None:
            tensors[f"{owner}.input_scale"] = torch.ones(1)
    save_file(tensors, directory / "model.safetensors")
    path = directory / "config.json"
    quantization = {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "config_groups": {"group_0": scheme.model_dump(mode="json")},
        "ignore": ["lm_head"],
    }
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": quantization}))
    return decompressed


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_others_publish_opens(name, make_decoder, input_ids, tmp_path):
    decoder = make_decoder("qwen2")
    expected = publish(decoder, tmp_path / "theirs", name)

    loaded = load_decoder(tmp_path / "theirs")
    save_decoder(loaded, tmp_path / "ours")
    again = load_decoder(tmp_path / "ours")

    assert len(expected) == 7 * 3
    for owner, weight in expected.items():
        assert torch.equal(loaded.get_submodule(owner).dequantize(torch.float32), weight)
        assert torch.equal(again.get_submodule(owner).dequantize(torch.float32), weight)
        decoder.get_submodule(owner).weight.data = weight
    torch.testing.assert_close(loaded(input_ids), decoder(input_ids), atol=1e-5, rtol=1e-5)


def test_layers_may_be_stored_in_different_ways(make_decoder, input_ids, transformers_logits, tmp_path):
    decoder = make_decoder("qwen3")
    for number, layer in enumerate(decoder.model.layers):
        layer.mlp.down_proj = QuantizedLinear.from_linear(layer.mlp.down_proj, "int4", 32 * 2**number)
    decoder.model.layers[0].self_attn.o_proj = QuantizedLinear.from_linear(
        decoder.model.layers[0].self_attn.o_proj, "fp8"
    )
    save_decoder(decoder, tmp_path)

    loaded = load_decoder(tmp_path)

    assert torch.equal(loaded(input_ids), decoder(input_ids))
    torch.testing.assert_close(loaded(input_ids), transformers_logits(tmp_path, input_ids), atol=1e-4, rtol=1e-4)


def test_import_and_export_copy_it(saved, tmp_path):
    entry = import_model("small", saved, home=tmp_path / "home")
    export_model(entry, tmp_path / "exported")

    first, second = (load_file(path / "model.safetensors") for path in (saved, tmp_path / "exported"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert load_decoder(tmp_path / "exported").model.layers[0].mlp.up_proj.bits == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q: q.update(quant_method="gptq"), "quant_method 'gptq' is not supported; allowed: symmetric weights"),
        (lambda q: q["config_groups"]["group_0"].update(format="nvfp4-pack-quantized"), "nvfp4-pack-quantized with 4"),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(symmetric=False), "symmetric False"),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(actorder="group"), "actorder 'group'"),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(strategy="block"), "strategy 'block'"),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(num_bits=3), "pack-quantized with 3 int bits"),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(group_size=48), "not a multiple of the group size"),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(group_size=64), "wrong shape.*weight_scale"),
        (lambda q: q.update(config_groups=7), "config_groups"),
        (lambda q: q.update(ignore=[]), "lm_head: a quantised output projection is not supported"),
        (lambda q: q.update(transform_config={"config_groups": {}}), "transform_config"),
        (lambda q: q.update(sparsity_config={"format": "sparse-24-bitmask"}), "sparse-24-bitmask"),
        (lambda q: q.update(ignore=["lm_head", "re:.*q_proj"]), "missing: .*q_proj.weight.*unexpected: .*q_proj"),
    ],
)
def test_what_is_not_read_is_refused_by_name(saved, change, message):
    change_quantization(saved, change)
    for read in (load_decoder, verify_checkpoint):
        with pytest.raises(CheckpointError, match=message):
            read(saved)


def test_tensors_of_another_type_are_refused(saved):
    tensors = load_file(saved / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight_packed"] = tensors["model.layers.0.mlp.up_proj.weight_packed"].float()
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"up_proj.weight_packed \(is F32, not I32\)"):
        load_decoder(saved)


def test_quantised_experts_are_refused(make_decoder, tmp_path):
    decoder = make_decoder("qwen3_moe")
    quantize_decoder(decoder, CONFIGS["int8"])
    save_decoder(decoder, tmp_path)
    change_quantization(tmp_path, lambda q: q.update(ignore=["lm_head"]))
    with pytest.raises(CheckpointError, match="quantised experts and routers are not supported"):
        load_decoder(tmp_path)
