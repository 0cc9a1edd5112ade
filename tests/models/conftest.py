"""Tiny random checkpoints of every layout, made and run by transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

VOCAB_SIZE = 97
SEQUENCE_LENGTH = 40

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 16}

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-tied-biased-llama3": {
        "model_type": "llama",
        "tie_word_embeddings": True,
        "attention_bias": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "llama-multi-head-linear": {
        "model_type": "llama",
        "num_key_value_heads": 4,
        "head_dim": 12,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5},
    },
    "mistral-sliding": {"model_type": "mistral", "sliding_window": 7, "head_dim": 16},
    "mistral-full": {"model_type": "mistral", "sliding_window": None, "num_key_value_heads": 1},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen2-sliding-yarn": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 1,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "qwen3-layer-types": {
        "model_type": "qwen3",
        "head_dim": 16,
        "tie_word_embeddings": True,
        "use_sliding_window": True,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "qwen3-biased-yarn-factor": {
        "model_type": "qwen3",
        "head_dim": 16,
        "attention_bias": True,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "attention_factor": 0.7,
        },
    },
    "qwen3-yarn-mscale": {
        "model_type": "qwen3",
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "mscale": 1.5,
            "mscale_all_dim": 0.5,
            "truncate": False,
        },
    },
    "qwen3_moe-normalised": {
        "model_type": "qwen3_moe",
        **_EXPERTS,
        "norm_topk_prob": True,
        "mlp_only_layers": [1],
        "tie_word_embeddings": True,
    },
    "qwen3_moe-sparse-step-sliding": {
        "model_type": "qwen3_moe",
        **_EXPERTS,
        "norm_topk_prob": False,
        "decoder_sparse_step": 2,
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": 9,
    },
}


@dataclass(frozen=True)
class Reference:
    """A checkpoint that transformers wrote, and the logits it computes for `input_ids`, `[1, T, vocab]`."""

    directory: Path
    input_ids: torch.Tensor
    logits: torch.Tensor


@pytest.fixture(scope="session")
def transformers_logits() -> Callable[[Path, torch.Tensor], torch.Tensor]:
    """Opens a directory with transformers, insists that every tensor fits, and returns the logits."""
    from transformers import AutoModelForCausalLM

    def logits(directory: Path, input_ids: torch.Tensor) -> torch.Tensor:
        model, info = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        assert not any(info.values()), info
        with torch.no_grad():
            return model(input_ids).logits

    return logits


@pytest.fixture(scope="session")
def make_reference(
    tmp_path_factory: pytest.TempPathFactory, transformers_logits: Callable[[Path, torch.Tensor], torch.Tensor]
) -> Callable[[str], Reference]:
    """The reference of a variant, made once."""
    from transformers import AutoConfig, AutoModelForCausalLM

    made: dict[str, Reference] = {}

    def make(variant: str) -> Reference:
        if variant not in made:
            options = {**_SHAPE, **VARIANTS[variant]}
            generator = torch.Generator().manual_seed(7)
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**options))
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    offset = 1.0 if "norm" in name else 0.0
                    parameter.copy_(offset + 0.3 * torch.randn(parameter.shape, generator=generator))
            directory = tmp_path_factory.mktemp(variant)
            model.save_pretrained(directory)
            input_ids = torch.randint(VOCAB_SIZE, (1, SEQUENCE_LENGTH), generator=generator)
            made[variant] = Reference(directory, input_ids, transformers_logits(directory, input_ids))
        return made[variant]

    return make


@pytest.fixture(params=sorted(VARIANTS))
def reference(request: pytest.FixtureRequest, make_reference: Callable[[str], Reference]) -> Reference:
    """The reference of every variant in turn."""
    return make_reference(request.param)
