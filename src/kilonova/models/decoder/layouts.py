"""The Hugging Face layouts a decoder is read from and written to: what each fixes, and what it lets a file say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from kilonova.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What one `model_type` of `config.json` means.

    `qkv_bias` None leaves biases to the file's `attention_bias`, which then covers the output projection too.
    `sliding_window` says which layers a window may apply to: none, all at once, or each by itself.
    `optional_window` is whether `use_sliding_window` switches it. `defaults` are the values of absent keys,
    those of the layout's class in transformers.
    """

    architecture: str
    qkv_bias: bool | None
    qk_norm: bool = False
    sliding_window: Literal["none", "all", "per_layer"] = "none"
    optional_window: bool = False
    experts: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)


LAYOUTS: Mapping[str, Layout] = {
    "llama": Layout(
        architecture="LlamaForCausalLM",
        qkv_bias=None,
        defaults={"max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "mistral": Layout(
        architecture="MistralForCausalLM",
        qkv_bias=False,
        sliding_window="all",
        defaults={
            "max_position_embeddings": 131072,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "qwen2": Layout(
        architecture="Qwen2ForCausalLM",
        qkv_bias=True,
        sliding_window="per_layer",
        optional_window=True,
        defaults={"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28},
    ),
    "qwen3": Layout(
        architecture="Qwen3ForCausalLM",
        qkv_bias=None,
        qk_norm=True,
        sliding_window="per_layer",
        optional_window=True,
        defaults={"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
    ),
    "qwen3_moe": Layout(
        architecture="Qwen3MoeForCausalLM",
        qkv_bias=None,
        qk_norm=True,
        sliding_window="all",
        optional_window=True,
        experts=True,
        defaults={
            "num_key_value_heads": 4,
            "sliding_window": 4096,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
    ),
}


def layout_of(model_type: object) -> Layout:
    """The layout named `model_type`; an unknown one is a `ConfigError` that lists the known."""
    if not isinstance(model_type, str) or model_type not in LAYOUTS:
        raise ConfigError(f"model_type: {model_type!r} is not supported; allowed: {', '.join(sorted(LAYOUTS))}")
    return LAYOUTS[model_type]


@dataclass(frozen=True, kw_only=True)
class HfFields:
    """The keys of `config.json` that bear on the network, typed; others are ignored."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 32768
    original_max_position_embeddings: int | None = None
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_theta: float | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    partial_rotary_factor: float | None = None
    use_sliding_window: bool = False
    sliding_window: int | None = None
    max_window_layers: int = 28
    layer_types: list[str] | None = None
    num_experts: int = 0
    num_local_experts: int | None = None
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    norm_topk_prob: bool = False
    decoder_sparse_step: int = 1
    mlp_only_layers: list[int] | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None


def read_fields(mapping: Mapping[str, Any], layout: Layout) -> HfFields:
    """The typed fields of a parsed `config.json`; a wrong type or an unsupported variant is a `ConfigError`."""
    try:
        fields = msgspec.convert({**layout.defaults, **mapping}, HfFields)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from error
    if fields.hidden_act != "silu":
        raise ConfigError(f"hidden_act: {fields.hidden_act!r} is not supported; allowed: 'silu'")
    if fields.mlp_bias:
        raise ConfigError("mlp_bias: true is not supported; allowed: false")
    if fields.partial_rotary_factor not in (None, 1.0):
        raise ConfigError(f"partial_rotary_factor: {fields.partial_rotary_factor} is not supported; allowed: 1.0")
    return fields


def read_windows(fields: HfFields, layout: Layout) -> tuple[int | None, ...]:
    """The sliding window of each layer; empty where no layer has one."""
    window = fields.sliding_window if fields.use_sliding_window or not layout.optional_window else None
    if layout.sliding_window == "none" or (window is None and fields.layer_types is None):
        return ()
    if layout.sliding_window == "all":
        return (window,) * fields.num_hidden_layers if window is not None else ()
    types = fields.layer_types
    if types is None:
        full = min(fields.max_window_layers, fields.num_hidden_layers)
        types = ["full_attention"] * full + ["sliding_attention"] * (fields.num_hidden_layers - full)
    if len(types) != fields.num_hidden_layers:
        raise ConfigError(f"layer_types: {len(types)} entries for num_hidden_layers {fields.num_hidden_layers}")
    for name in types:
        if name not in ("full_attention", "sliding_attention"):
            raise ConfigError(f"layer_types: {name!r} is not supported; allowed: full_attention, sliding_attention")
    if "sliding_attention" not in types:
        return ()
    if window is None:
        raise ConfigError("layer_types: sliding_attention needs use_sliding_window true and a sliding_window")
    return tuple(window if name == "sliding_attention" else None for name in types)


def read_moe_layers(fields: HfFields, layout: Layout) -> frozenset[int]:
    """The layers that have experts."""
    experts = fields.num_local_experts if fields.num_local_experts is not None else fields.num_experts
    if not layout.experts or experts == 0:
        return frozenset()
    if fields.decoder_sparse_step < 1:
        raise ConfigError(f"decoder_sparse_step: {fields.decoder_sparse_step} is less than 1")
    dense = frozenset(fields.mlp_only_layers or ())
    sparse = range(fields.decoder_sparse_step - 1, fields.num_hidden_layers, fields.decoder_sparse_step)
    return frozenset(sparse) - dense
