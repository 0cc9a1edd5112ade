"""The average of weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from kilonova.train.averaging import WeightAverage


def test_the_average_is_exponential_and_short_at_first() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    model[1].bias.requires_grad_(False)
    average = WeightAverage(model, decay=0.5)
    expected = model[0].weight.detach().double()
    for count in range(1, 12):
        with torch.no_grad():
            model[0].weight += torch.randn(2, 3, generator=torch.Generator().manual_seed(count))
            model[1].bias += 1
        average.update(model)
        decay = min(0.5, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * model[0].weight.detach().double()
    before = copy.deepcopy(model.state_dict())
    with average.applied(model):
        torch.testing.assert_close(model[0].weight.double(), expected, rtol=1e-5, atol=1e-6)
        # What is not trained is as it is.
        assert torch.equal(model[1].bias, before["1.bias"])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_average_is_given_back_after_an_error_and_saved_with_the_model() -> None:
    model = nn.Linear(2, 2)
    kept = model.weight.detach().clone()
    average = WeightAverage(model, decay=0.9)
    with torch.no_grad():
        model.weight.zero_()
    average.update(model)
    try:
        with average.applied(model):
            raise RuntimeError
    except RuntimeError:
        pass
    assert (model.weight == 0).all()
    other = WeightAverage(model, decay=0.9)
    other.load_state_dict(average.state_dict())
    with other.applied(model):
        torch.testing.assert_close(model.weight, 2 / 11 * kept)
    assert int(other.num_updates) == 1
