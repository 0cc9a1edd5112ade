"""Configuration of a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kilonova.core.errors import ConfigError
from kilonova.models.decoder.layouts import layout_of, read_fields, read_moe_layers, read_windows
from kilonova.models.decoder.rope_parameters import read_rope, write_rope
from kilonova.nn.rotary import RotaryScaling


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of a decoder-only transformer, in Hugging Face's terms.

    `model_type` names the layout it is read from and written to, which must be able to express the rest.
    `layer_windows` holds the sliding window of each layer (None: full attention). A layer listed in `moe_layers` has
    experts in place of the dense feed-forward. Token ids travel along because readers expect them in `config.json`.
    Values that make no network are a `ConfigError` that names the field.
    """

    model_type: str = "qwen3"
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: RotaryScaling | None = None
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = True
    layer_windows: tuple[int | None, ...] = ()
    moe_layers: frozenset[int] = frozenset()
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    norm_topk_prob: bool = False
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_layout()

    def _check_sizes(self) -> None:
        positive = [
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
        ]
        if self.moe_layers:
            positive += ["num_experts", "num_experts_per_tok", "moe_intermediate_size"]
        for name in positive:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} is less than 1")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads: {self.num_attention_heads} is not a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim: {self.head_dim} is odd; rotary positions need an even one")
        if self.layer_windows and len(self.layer_windows) != self.num_hidden_layers:
            raise ConfigError(
                f"layer_windows: {len(self.layer_windows)} entries for num_hidden_layers {self.num_hidden_layers}"
            )
        if any(window is not None and window < 1 for window in self.layer_windows):
            raise ConfigError("sliding_window: less than 1")
        if not self.moe_layers <= set(range(self.num_hidden_layers)):
            raise ConfigError(f"moe_layers: {sorted(self.moe_layers)} goes beyond {self.num_hidden_layers} layers")
        if self.moe_layers and self.num_experts_per_tok > self.num_experts:
            raise ConfigError(f"num_experts_per_tok: {self.num_experts_per_tok} exceeds num_experts {self.num_experts}")

    def _check_layout(self) -> None:
        layout = layout_of(self.model_type)
        if self.qk_norm != layout.qk_norm:
            raise ConfigError(f"qk_norm: {self.model_type} fixes it to {layout.qk_norm}")
        if layout.qkv_bias is None and self.qkv_bias != self.output_bias:
            raise ConfigError(f"output_bias: {self.model_type} has it equal to qkv_bias")
        if layout.qkv_bias is not None and (self.qkv_bias, self.output_bias) != (layout.qkv_bias, False):
            raise ConfigError(f"qkv_bias: {self.model_type} fixes it to {layout.qkv_bias}, and output_bias to False")
        if self.moe_layers and not layout.experts:
            raise ConfigError(f"moe_layers: {self.model_type} has no experts")
        windows = set(self.layer_windows)
        allowed = {"none": windows <= {None}, "all": len(windows) <= 1, "per_layer": len(windows - {None}) <= 1}
        if not allowed[layout.sliding_window]:
            raise ConfigError(
                f"layer_windows: {self.model_type} cannot express {list(self.layer_windows)}; it allows "
                + {"none": "no window", "all": "one window on all layers", "per_layer": "one size of window"}[
                    layout.sliding_window
                ]
            )

    def window(self, layer_index: int) -> int | None:
        """The sliding window of a layer, None for full attention."""
        return self.layer_windows[layer_index] if self.layer_windows else None

    @classmethod
    def from_hf(cls, mapping: Mapping[str, Any]) -> DecoderConfig:
        """The configuration a parsed `config.json` describes, as transformers 4 or 5 would read it.

        A missing or mistyped key, and a variant this decoder does not have, are a `ConfigError` that names the key.
        """
        model_type = mapping.get("model_type")
        layout = layout_of(model_type)
        fields = read_fields(mapping, layout)
        theta, scaling = read_rope(fields)
        moe_layers = read_moe_layers(fields, layout)
        experts = fields.num_local_experts if fields.num_local_experts is not None else fields.num_experts
        eos = fields.eos_token_id
        return cls(
            model_type=str(model_type),
            vocab_size=fields.vocab_size,
            hidden_size=fields.hidden_size,
            intermediate_size=fields.intermediate_size,
            num_hidden_layers=fields.num_hidden_layers,
            num_attention_heads=fields.num_attention_heads,
            num_key_value_heads=fields.num_key_value_heads or fields.num_attention_heads,
            head_dim=fields.head_dim or fields.hidden_size // max(fields.num_attention_heads, 1),
            max_position_embeddings=fields.max_position_embeddings,
            rms_norm_eps=fields.rms_norm_eps,
            rope_theta=theta,
            rope_scaling=scaling,
            tie_word_embeddings=fields.tie_word_embeddings,
            qkv_bias=fields.attention_bias if layout.qkv_bias is None else layout.qkv_bias,
            output_bias=fields.attention_bias if layout.qkv_bias is None else False,
            qk_norm=layout.qk_norm,
            layer_windows=read_windows(fields, layout),
            moe_layers=moe_layers,
            num_experts=experts if moe_layers else 0,
            num_experts_per_tok=fields.num_experts_per_tok if moe_layers else 0,
            moe_intermediate_size=fields.moe_intermediate_size if moe_layers else 0,
            norm_topk_prob=fields.norm_topk_prob if moe_layers else False,
            initializer_range=fields.initializer_range,
            bos_token_id=fields.bos_token_id,
            eos_token_ids=() if eos is None else (eos,) if isinstance(eos, int) else tuple(eos),
            pad_token_id=fields.pad_token_id,
        )

    def to_hf(self) -> dict[str, Any]:
        """The `config.json` that transformers 4 and 5, vLLM and llama.cpp's converter read alike."""
        layout = layout_of(self.model_type)
        written: dict[str, Any] = {
            "architectures": [layout.architecture],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            **write_rope(self.rope_theta, self.rope_scaling),
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_dropout": 0.0,
            "initializer_range": self.initializer_range,
            "use_cache": True,
            **self.token_ids_to_hf(),
        }
        if layout.qkv_bias is None:
            written["attention_bias"] = self.qkv_bias
        if layout.sliding_window != "none":
            written.update(self._windows_to_hf(layout.optional_window, layout.sliding_window == "per_layer"))
        if layout.experts:
            dense = set(range(self.num_hidden_layers)) - self.moe_layers
            written.update(
                num_experts=self.num_experts,
                num_local_experts=self.num_experts,
                num_experts_per_tok=self.num_experts_per_tok,
                moe_intermediate_size=self.moe_intermediate_size,
                norm_topk_prob=self.norm_topk_prob,
                decoder_sparse_step=1,
                mlp_only_layers=sorted(dense),
            )
        return written

    def token_ids_to_hf(self) -> dict[str, int | list[int] | None]:
        """The token ids that both `config.json` and `generation_config.json` carry."""
        eos = self.eos_token_ids
        return {
            "bos_token_id": self.bos_token_id,
            "eos_token_id": list(eos) if len(eos) > 1 else eos[0] if eos else None,
            "pad_token_id": self.pad_token_id,
        }

    def _windows_to_hf(self, optional: bool, per_layer: bool) -> dict[str, Any]:
        windowed = [index for index, window in enumerate(self.layer_windows) if window is not None]
        written: dict[str, Any] = {"sliding_window": self.layer_windows[windowed[0]] if windowed else None}
        if optional:
            written["use_sliding_window"] = bool(windowed)
            written["max_window_layers"] = windowed[0] if windowed else self.num_hidden_layers
        if per_layer:
            written["layer_types"] = [
                "full_attention" if self.window(index) is None else "sliding_attention"
                for index in range(self.num_hidden_layers)
            ]
        return written
