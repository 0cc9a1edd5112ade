"""Adapters of decoders, exchanged with PEFT."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kilonova.core.errors import CheckpointError, ConfigError
from kilonova.models.adapter import (
    AdapterConfig,
    adapter_layers,
    attach_adapter,
    load_adapter,
    merge_adapter,
    merge_directories,
    save_adapter,
)
from kilonova.models.checkpoint import load_decoder, save_decoder
from kilonova.models.decoder.model import Decoder

Make = Callable[[str], Any]
CONFIGS = {
    "lora": AdapterConfig(rank=3, alpha=7.0),
    "dora": AdapterConfig(kind="dora", rank=3, alpha=7.0),
    "rslora-attention": AdapterConfig(rank=2, alpha=3.0, rslora=True, target_modules=("q_proj", "v_proj")),
    "one-layer": AdapterConfig(rank=2, target_modules=("layers.1.mlp.down_proj", "layers.0.self_attn.o_proj")),
}


@torch.no_grad()
def adapted(directory: Path, config: AdapterConfig) -> Decoder:
    """The decoder of `directory` with an adapter that changes what it computes."""
    decoder = load_decoder(directory, dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    attach_adapter(decoder, config, generator)
    for layer in adapter_layers(decoder).values():
        layer.lora_B.normal_(0, 0.3, generator=generator)
        if layer.lora_magnitude_vector is not None:
            layer.lora_magnitude_vector.mul_(1.3)
    return decoder


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to 1e-5 of the largest logit."""
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def base_of(directory: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")


@pytest.mark.parametrize(
    ("variant", "config"),
    [*(("llama-tied-biased-llama3", config) for config in CONFIGS.values()), ("qwen3-layer-types", CONFIGS["dora"])],
)
@torch.no_grad()
def test_peft_opens_what_we_write(make_reference: Make, tmp_path: Path, variant: str, config: AdapterConfig) -> None:
    from peft import PeftModel

    reference = make_reference(variant)
    decoder = adapted(reference.directory, config)
    ours = decoder(reference.input_ids)
    assert (ours - reference.logits).abs().max() > 0.1

    save_adapter(decoder, tmp_path / "adapter", base=str(reference.directory))
    peft = PeftModel.from_pretrained(base_of(reference.directory), str(tmp_path / "adapter"))
    assert_close(peft(reference.input_ids).logits, ours)

    merge_adapter(decoder)
    assert not adapter_layers(decoder)
    assert_close(decoder(reference.input_ids), ours)
    merged = {name: tensor for name, tensor in peft.merge_and_unload().state_dict().items() if "_proj" in name}
    for name, tensor in merged.items():
        torch.testing.assert_close(decoder.get_parameter(name), tensor, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("qwen2", {}),
        ("qwen2", {"use_dora": True}),
        ("mistral-sliding", {"use_rslora": True, "target_modules": "all-linear"}),
    ],
)
@torch.no_grad()
def test_we_open_what_peft_writes(make_reference: Make, tmp_path: Path, variant: str, options: dict) -> None:
    from peft import LoraConfig, get_peft_model

    reference = make_reference(variant)
    options = {"target_modules": ["q_proj", "up_proj"], **options}
    config = LoraConfig(r=3, lora_alpha=5, task_type="CAUSAL_LM", init_lora_weights="gaussian", **options)
    torch.manual_seed(1)
    peft = get_peft_model(base_of(reference.directory), config)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(2))
    peft.save_pretrained(tmp_path)

    decoder = load_decoder(reference.directory, dtype=torch.float32)
    load_adapter(decoder, tmp_path)
    assert_close(decoder(reference.input_ids), peft(reference.input_ids).logits)


@torch.no_grad()
def test_attention_of_a_mixture_of_experts(make_reference: Make, tmp_path: Path) -> None:
    from peft import PeftModel

    reference = make_reference("qwen3_moe-normalised")
    decoder = adapted(reference.directory, CONFIGS["lora"])
    leaves = {name.rpartition(".")[2] for name in adapter_layers(decoder)}
    assert leaves == {"q_proj", "k_proj", "v_proj", "o_proj"}
    save_adapter(decoder, tmp_path, base=str(reference.directory))
    peft = PeftModel.from_pretrained(base_of(reference.directory), str(tmp_path))
    assert_close(peft(reference.input_ids).logits, decoder(reference.input_ids))

    for target in ("down_proj", "gate_up_proj", "gate"):
        fresh = load_decoder(reference.directory)
        with pytest.raises(ConfigError, match="attention only"):
            attach_adapter(fresh, replace(CONFIGS["lora"], target_modules=(target,)))
        assert not adapter_layers(fresh)


def test_only_the_adapter_is_trained(make_reference: Make) -> None:
    decoder = load_decoder(make_reference("qwen2").directory, dtype=torch.float32)
    attach_adapter(decoder, CONFIGS["dora"])
    trained = [name for name, parameter in decoder.named_parameters() if parameter.requires_grad]
    assert len(trained) == 3 * 7 * decoder.config.num_hidden_layers
    assert all(".lora_" in name for name in trained)


def test_flops_of_an_adapter_leave_out_gradients_of_frozen_weights(make_reference: Make) -> None:
    decoder = load_decoder(make_reference("qwen2").directory, dtype=torch.float32)
    whole, length = decoder.flops_per_token(10), 10
    config = decoder.config
    attention = 6 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * length
    attach_adapter(decoder, CONFIGS["lora"])
    adapter = sum(layer.lora_A.numel() + layer.lora_B.numel() for layer in adapter_layers(decoder).values())
    assert decoder.flops_per_token(length) == pytest.approx((whole - attention) * 4 / 6 + attention + 6 * adapter)


@torch.no_grad()
def test_a_decoder_is_saved_as_merged(make_reference: Make, tmp_path: Path, transformers_logits: Any) -> None:
    reference = make_reference("qwen3-layer-types")
    decoder = adapted(reference.directory, CONFIGS["dora"])
    save_decoder(decoder, tmp_path / "model")
    expected = decoder(reference.input_ids)
    found = transformers_logits(tmp_path / "model", reference.input_ids)
    assert_close(found, expected)
    assert adapter_layers(decoder)


@torch.no_grad()
def test_directories_are_merged_with_what_belongs_to_them(make_reference: Make, tmp_path: Path) -> None:
    reference = make_reference("llama")
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    decoder = load_decoder(reference.directory, dtype=torch.float32)
    save_decoder(decoder, base)
    (base / "tokenizer.json").write_text("base's")
    (base / "tokenizer_config.json").write_text("{}")
    (base / "README.md").write_text("the base's card")
    (base / "generation_config.json").write_text('{"temperature": 0.7}')
    decoder = adapted(base, CONFIGS["lora"])
    save_adapter(decoder, adapter, base=str(base))
    (adapter / "tokenizer.json").write_text("adapter's")

    merge_directories(base, adapter, tmp_path / "merged")

    merged = load_decoder(tmp_path / "merged")
    assert_close(merged(reference.input_ids), decoder(reference.input_ids))
    names = {file.name for file in (tmp_path / "merged").iterdir()}
    assert (tmp_path / "merged" / "tokenizer.json").read_text() == "adapter's"
    assert json.loads((tmp_path / "merged" / "generation_config.json").read_text())["temperature"] == 0.7
    assert "tokenizer_config.json" in names
    assert not names & {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    with pytest.raises(ConfigError, match="not an empty directory"):
        merge_directories(base, adapter, tmp_path / "merged")


@pytest.mark.parametrize(
    ("targets", "message"),
    [(("q_prj",), "'q_prj' is none of .*q_proj"), (("lm_head",), "'lm_head' is none of"), ((), "at least one")],
)
def test_targets_that_do_not_exist(make_reference: Make, targets: tuple[str, ...], message: str) -> None:
    decoder = load_decoder(make_reference("qwen2").directory)
    with pytest.raises(ConfigError, match=message):
        attach_adapter(decoder, AdapterConfig(target_modules=targets))


def test_a_second_adapter_is_refused(make_reference: Make) -> None:
    decoder = load_decoder(make_reference("qwen2").directory)
    attach_adapter(decoder, CONFIGS["lora"])
    with pytest.raises(ConfigError, match="has one already"):
        attach_adapter(decoder, CONFIGS["lora"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"r": 4}, "ask for"),
        ({"use_dora": True}, "not lora_A, lora_B, lora_magnitude_vector"),
    ],
)
def test_what_cannot_be_read_is_named(make_reference: Make, tmp_path: Path, changes: dict, message: str) -> None:
    reference = make_reference("qwen2")
    save_adapter(adapted(reference.directory, CONFIGS["lora"]), tmp_path, base="base")
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=message):
        load_adapter(load_decoder(reference.directory), tmp_path)


def test_tensors_of_another_model_are_named(make_reference: Make, tmp_path: Path) -> None:
    reference = make_reference("qwen2")
    save_adapter(adapted(reference.directory, CONFIGS["lora"]), tmp_path, base="base")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"
    save_file({**tensors, name: torch.zeros(3, 32)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers.9.self_attn.q_proj is no linear layer"):
        load_adapter(load_decoder(reference.directory), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="truncated"):
        load_adapter(load_decoder(reference.directory), tmp_path)


def test_nothing_to_save(make_reference: Make, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no adapter"):
        save_adapter(load_decoder(make_reference("qwen2").directory), tmp_path, base="base")
