from __future__ import annotations

from typing import Any

import pytest
import torch

from kilonova.nn.rotary import RotaryEmbedding, RotaryScaling, apply_rotary, rotary_frequencies

SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
    "yarn-factor": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 4096,
        "attention_factor": 1.3,
        "beta_fast": 20.0,
        "beta_slow": 3.0,
    },
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
        "truncate": False,
    },
    "yarn-narrow": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4},
    "yarn-unstretched": {"rope_type": "yarn", "factor": 1.0, "original_max_position_embeddings": 4096},
}


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaled_frequencies_are_those_of_transformers(scaling):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    values = SCALINGS[scaling]
    theta = 500_000.0
    config = LlamaConfig(
        hidden_size=512,
        num_attention_heads=4,
        max_position_embeddings=16384,
        rope_parameters={**values, "rope_theta": theta},
    )
    expected, expected_factor = ROPE_INIT_FUNCTIONS[values["rope_type"]](config)
    frequencies, factor = rotary_frequencies(128, theta, RotaryScaling(**values), 16384)
    torch.testing.assert_close(frequencies, expected, rtol=1e-6, atol=0)
    assert factor == pytest.approx(expected_factor)


def test_yarn_without_an_original_length_takes_the_context_length():
    given = RotaryScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=2048)
    absent = RotaryScaling(rope_type="yarn", factor=4.0)
    expected, _ = rotary_frequencies(64, 10_000.0, given, 2048)
    frequencies, _ = rotary_frequencies(64, 10_000.0, absent, 2048)
    assert torch.equal(frequencies, expected)


def test_rotation_turns_each_pair_by_its_angle():
    x = torch.randn(1, 1, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    positions = torch.tensor([0, 1, 2, 100, 3000])
    cos, sin = RotaryEmbedding(8, 10_000.0)(positions, torch.float64)
    frequencies = 10_000.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.exp(1j * positions[:, None] * frequencies)
    expected = torch.cat((turned.real, turned.imag), dim=-1)
    torch.testing.assert_close(apply_rotary(x, cos, sin), expected, rtol=0, atol=1e-3)


def test_attention_factor_scales_cos_and_sin():
    scaling = RotaryScaling(rope_type="yarn", factor=1.0, attention_factor=0.5)
    plain, scaled = RotaryEmbedding(8, 10_000.0), RotaryEmbedding(8, 10_000.0, scaling)
    positions = torch.arange(6)
    for ours, base in zip(scaled(positions, torch.float32), plain(positions, torch.float32), strict=True):
        torch.testing.assert_close(ours, 0.5 * base)
