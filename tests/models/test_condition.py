from __future__ import annotations

import pytest
import torch

from kilonova.core.errors import ConfigError
from kilonova.models.condition import Condition


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"mask"}, "masked_latents"),
        ({"control", "control_type"}, "control_strength"),
        ({"palette_mask"}, "palette"),
        ({"references", "similarity"}, "references_mask"),
    ],
)
def test_a_part_without_all_its_members_is_refused_by_name(given, missing):
    with pytest.raises(ConfigError, match=rf"^{missing}: is missing"):
        Condition(**{name: torch.zeros(1) for name in given})


def test_it_converts_numbers_and_leaves_flags_alone():
    condition = Condition(palette=torch.zeros(2, 3, 3), palette_mask=torch.ones(2, 3, dtype=torch.bool))
    converted = condition.to(dtype=torch.bfloat16).map(lambda tensor: torch.cat((tensor, tensor)))
    assert (converted.palette.dtype, converted.palette_mask.dtype) == (torch.bfloat16, torch.bool)
    assert converted.palette.shape == (4, 3, 3)
    assert converted.mask is None
