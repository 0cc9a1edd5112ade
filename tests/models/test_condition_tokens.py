from __future__ import annotations

import math

import torch

from kilonova.models.condition import Condition
from kilonova.models.condition_tokens import ConditionTokens, Tokens, join, key_bias, without_position
from kilonova.nn.patches import PatchEmbedding


def test_joined_tokens_keep_places_and_weights():
    text = without_position(torch.zeros(2, 3, 4), torch.tensor([[True, True, False], [True, False, False]]))
    picture = Tokens(torch.ones(2, 2, 4), torch.tensor([[0.0, -0.5], [0.0, 0.5]]))
    joined = join([text, picture])
    assert joined.states[0, :, 0].tolist() == [0, 0, 0, 1, 1]
    assert joined.positions.tolist() == [[0, 0], [0, 0], [0, 0], [0, -0.5], [0, 0.5]]
    assert joined.weights.tolist() == [[1, 1, 0, 1, 1], [1, 0, 0, 1, 1]]
    assert join([picture, picture]).weights is None


def test_a_bias_is_the_logarithm_of_the_weights_and_left_out_where_it_would_do_nothing():
    states = torch.zeros(1, 3, 4)
    assert key_bias(without_position(states)) is None
    assert key_bias(join([without_position(states, torch.ones(1, 3, dtype=torch.bool))])) is None
    bias = key_bias(without_position(states, torch.tensor([[1.0, 0.5, 0.0]])))
    torch.testing.assert_close(bias, torch.tensor([[0.0, math.log(0.5), -math.inf]]))


def test_pictures_make_a_token_a_patch_where_the_patch_is():
    module = ConditionTokens(8)
    condition = Condition(
        control=torch.zeros(1, 4, 2, 4),
        control_type=torch.tensor([1]),
        control_strength=torch.tensor([0.5]),
        references=torch.zeros(1, 3, 4, 4, 2),
        references_mask=torch.tensor([[True, False, True]]),
        similarity=torch.tensor([0.25]),
    )
    references, control = module(condition, PatchEmbedding(4, 2, 8), 2)
    assert (references.states.shape, control.states.shape) == ((1, 6, 8), (1, 2, 8))
    assert references.weights.tolist() == [[0.25, 0.25, 0, 0, 0.25, 0.25]]
    assert references.positions.tolist() == 3 * [[-0.5, 0.0], [0.5, 0.0]]
    assert control.weights.tolist() == [[0.5, 0.5]]
    assert control.positions.tolist() == [[0.0, -0.5], [0.0, 0.5]]
    assert module(None, PatchEmbedding(4, 2, 8), 2) == []


def test_a_colour_of_the_palette_is_one_token():
    module = ConditionTokens(8)
    palette = torch.tensor([[[50.0, 20.0, -30.0], [50.0, 20.0, -30.0], [10.0, 0.0, 0.0]]])
    (tokens,) = module(Condition(palette=palette, palette_mask=torch.ones(1, 3) > 0), PatchEmbedding(4, 2, 8), 2)
    assert torch.equal(tokens.states[0, 0], tokens.states[0, 1])
    assert not torch.equal(tokens.states[0, 0], tokens.states[0, 2])
    inner = palette[0, 2] / 100 @ module.palette_linear_1.weight.T + module.palette_linear_1.bias
    expected = (inner * inner.sigmoid()) @ module.palette_linear_2.weight.T + module.palette_linear_2.bias
    torch.testing.assert_close(tokens.states[0, 2], expected)
