from __future__ import annotations

import json

import pytest

from kilonova.core.errors import ConfigError
from kilonova.models.decoder.config import DecoderConfig
from kilonova.nn.rotary import RotaryScaling

LLAMA = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
QWEN3 = {**LLAMA, "model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 32}


def read(reference) -> dict:
    return json.loads((reference.directory / "config.json").read_text())


def test_what_is_written_reads_back_the_same(reference):
    config = DecoderConfig.from_hf(read(reference))
    written = json.loads(json.dumps(config.to_hf()))
    assert DecoderConfig.from_hf(written) == config


def test_either_generation_of_rope_keys_suffices(reference):
    config = DecoderConfig.from_hf(read(reference))
    written = config.to_hf()
    generation4 = {key: value for key, value in written.items() if key != "rope_parameters"}
    generation5 = {key: value for key, value in written.items() if key not in ("rope_theta", "rope_scaling")}
    assert DecoderConfig.from_hf(generation4) == config
    assert DecoderConfig.from_hf(generation5) == config


def test_transformers_reads_what_is_written(reference):
    from transformers import AutoConfig

    original = AutoConfig.from_pretrained(reference.directory)
    written = AutoConfig.for_model(**DecoderConfig.from_hf(read(reference)).to_hf())
    names = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "tie_word_embeddings",
        "hidden_act",
        "attention_bias",
        "sliding_window",
        "layer_types",
        "num_experts",
        "num_experts_per_tok",
        "moe_intermediate_size",
        "norm_topk_prob",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    ]
    for name in names:
        assert getattr(written, name, None) == getattr(original, name, None), name
    rope = original.rope_parameters
    assert rope.items() <= written.rope_parameters.items() | {("truncate", True)}


def test_legacy_rope_scaling_type_key():
    scaling = {"type": "linear", "factor": 2}
    config = DecoderConfig.from_hf({**LLAMA, "rope_theta": 1e6, "rope_scaling": scaling})
    assert (config.rope_theta, config.rope_scaling) == (1e6, RotaryScaling(rope_type="linear", factor=2.0))


def test_yarn_takes_its_factor_from_the_context_lengths():
    scaling = {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 1024}
    config = DecoderConfig.from_hf({**LLAMA, "max_position_embeddings": 4096, "rope_scaling": scaling})
    assert config.rope_scaling is not None
    assert config.rope_scaling.factor == 4.0


def test_absent_keys_take_the_defaults_of_the_layout():
    llama = DecoderConfig.from_hf(LLAMA)
    assert (llama.num_key_value_heads, llama.head_dim, llama.max_position_embeddings) == (4, 16, 2048)
    assert (llama.qkv_bias, llama.qk_norm, llama.eos_token_ids) == (False, False, (2,))
    mistral = DecoderConfig.from_hf({**LLAMA, "model_type": "mistral", "num_attention_heads": 8})
    assert (mistral.num_key_value_heads, mistral.layer_windows) == (8, (4096,) * 4)
    qwen2 = DecoderConfig.from_hf({**LLAMA, "model_type": "qwen2", "num_key_value_heads": 2})
    assert (qwen2.qkv_bias, qwen2.output_bias, qwen2.layer_windows) == (True, False, ())
    qwen3 = DecoderConfig.from_hf({key: value for key, value in QWEN3.items() if key != "head_dim"})
    assert (qwen3.head_dim, qwen3.qk_norm) == (128, True)


def test_windows_begin_at_max_window_layers():
    config = DecoderConfig.from_hf({**QWEN3, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3})
    assert [config.window(index) for index in range(4)] == [None, None, None, 8]
    unused = DecoderConfig.from_hf({**QWEN3, "use_sliding_window": False, "sliding_window": 8, "max_window_layers": 3})
    assert unused.layer_windows == ()


@pytest.mark.parametrize("eos", [None, 3, [3, 5]])
def test_end_tokens_survive(eos):
    config = DecoderConfig.from_hf({**QWEN3, "eos_token_id": eos, "bos_token_id": 1, "pad_token_id": 0})
    assert config.to_hf()["eos_token_id"] == eos
    assert (config.to_hf()["bos_token_id"], config.to_hf()["pad_token_id"]) == (1, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type: 'gpt2'.*llama, mistral, qwen2, qwen3, qwen3_moe"),
        ({"model_type": None}, "model_type: None"),
        ({"hidden_size": "64"}, r"Expected `int`, got `str` - at `\$\.hidden_size`"),
        ({"vocab_size": None}, r"\$\.vocab_size"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'.*silu"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'.*default, linear, llama3, yarn"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling.factor"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "by layer type"),
        ({"num_key_value_heads": 3}, "num_attention_heads: 4 is not a multiple"),
        ({"head_dim": 7}, "head_dim: 7 is odd"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0"),
        ({"num_attention_heads": 0}, "num_attention_heads: 0"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        DecoderConfig.from_hf({**LLAMA, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_types": ["full_attention"]}, "1 entries for num_hidden_layers 4"),
        ({"layer_types": ["full_attention"] * 3 + ["linear_attention"]}, "linear_attention.*sliding_attention"),
        ({"layer_types": ["sliding_attention"] * 4}, "needs use_sliding_window"),
        ({"use_sliding_window": True, "sliding_window": 0, "max_window_layers": 0}, "sliding_window"),
        ({"model_type": "qwen3_moe", "num_experts": 2, "num_experts_per_tok": 4}, "num_experts_per_tok: 4"),
        ({"model_type": "qwen3_moe", "decoder_sparse_step": 0}, "decoder_sparse_step"),
    ],
)
def test_bad_windows_and_experts_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        DecoderConfig.from_hf({**QWEN3, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qk_norm": False}, "qk_norm: qwen3 fixes it to True"),
        ({"qkv_bias": True}, "output_bias: qwen3"),
        ({"model_type": "qwen2", "qk_norm": False}, "qkv_bias: qwen2 fixes it to True"),
        ({"model_type": "llama", "qk_norm": False, "layer_windows": (4, 4, 4, 4)}, "llama cannot express"),
        ({"model_type": "mistral", "qk_norm": False, "layer_windows": (4, None, 4, 4)}, "one window on all layers"),
        ({"layer_windows": (4, None, 8, 4)}, "one size of window"),
        ({"layer_windows": (4,)}, "1 entries"),
        ({"moe_layers": frozenset({0}), "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}, "no"),
        ({"model_type": "qwen3_moe", "moe_layers": frozenset({0})}, "num_experts: 0"),
    ],
)
def test_a_network_its_layout_cannot_express_is_refused(change, message):
    values = vars(DecoderConfig.from_hf(QWEN3))
    with pytest.raises(ConfigError, match=message):
        DecoderConfig(**{**values, **change})
