from __future__ import annotations

import torch

from kilonova.nn.rotary import apply_rotary
from kilonova.nn.rotary_2d import RotaryEmbedding2D, grid_positions


def test_the_grid_is_counted_row_by_row_from_the_middle():
    expected = [[-0.5, -1], [-0.5, 0], [-0.5, 1], [0.5, -1], [0.5, 0], [0.5, 1]]
    assert grid_positions(2, 3).tolist() == expected


def test_scores_depend_on_the_way_from_token_to_token_alone_also_on_pictures_that_are_not_square():
    rotary = RotaryEmbedding2D(16, 100.0)
    query, key = torch.randn(2, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def scores(height, width):
        cos, sin = rotary(grid_positions(height, width), torch.float64)
        tokens = height * width
        turned = apply_rotary(torch.stack((query, key))[:, None].expand(2, tokens, 16), cos, sin)
        return (turned[0] @ turned[1].T).view(height, width, height, width)

    wide, tall = scores(3, 7), scores(8, 4)
    torch.testing.assert_close(wide[0, 0, 2, 3], wide[0, 3, 2, 6], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(wide[0, 1, 2, 4], tall[5, 0, 7, 3], rtol=1e-4, atol=1e-4)
    assert (wide[0, 1, 2, 4] - wide[0, 1, 2, 5]).abs() > 1e-2
    assert (wide[0, 1, 1, 3] - wide[0, 1, 2, 2]).abs() > 1e-2


def test_frequencies_stay_float32_when_the_module_is_converted():
    rotary = RotaryEmbedding2D(16, 100.0)
    before = rotary(grid_positions(5, 5), torch.float32)
    after = rotary.to(torch.bfloat16)(grid_positions(5, 5), torch.float32)
    assert torch.equal(before[0], after[0])
