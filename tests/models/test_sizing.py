from __future__ import annotations

import pytest

from kilonova.models.dit.config import DiTConfig
from kilonova.models.sizing import forward_flops, match_dit, match_unet, num_parameters
from kilonova.models.unet.config import UNET_VARIANTS
from kilonova.models.uvit.config import UVIT_PRESETS, UViTConfig

UVIT = UViTConfig(hidden_size=64, num_hidden_layers=5, num_attention_heads=4, text_hidden_size=32)
DIT = DiTConfig(hidden_size=64, num_hidden_layers=4, num_attention_heads=4, text_hidden_size=32)


def flops(config):
    return forward_flops(config, 4, 4, 8)


@pytest.mark.parametrize("measure", [num_parameters, flops])
def test_a_dit_of_a_uvits_size_is_found(measure):
    target = measure(UVIT)
    found = match_dit(DIT, measure, target)
    assert abs(measure(found) - target) < 0.025 * target
    assert 0.4 < found.hidden_size / found.num_hidden_layers / 16 < 2.5


def test_a_unet_of_a_uvits_size_is_found():
    target = num_parameters(UVIT_PRESETS["base"])
    found = match_unet(UNET_VARIANTS["td4_4"], num_parameters, target)
    assert found.transformer_depth == (0, 4, 4)
    assert abs(num_parameters(found) - target) < 0.06 * target


def test_more_tokens_and_larger_pictures_take_more_operations():
    assert forward_flops(UVIT, 4, 4, 8) < forward_flops(UVIT, 4, 4, 9) < forward_flops(UVIT, 4, 8, 8)
