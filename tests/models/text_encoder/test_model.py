from __future__ import annotations

import pytest
import torch

from kilonova.core.errors import ConfigError
from kilonova.models.sizing import num_parameters
from kilonova.models.text_encoder.config import TextTransformerConfig
from kilonova.models.text_encoder.model import TextTransformer
from kilonova.models.text_encoder.states import pad

CONFIG = TextTransformerConfig(
    vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
)


@pytest.fixture(scope="module")
def model():
    model = TextTransformer(CONFIG)
    model.init_weights(torch.Generator().manual_seed(0))
    return model


def test_padding_changes_nothing(model):
    texts = [[3, 4, 5], [7], [9, 8, 7, 6, 5]]
    ids, mask = pad(texts, torch.device("cpu"))
    together = model(ids.masked_fill(~mask, 11), mask)
    for index, text in enumerate(texts):
        alone = model(*pad([text], torch.device("cpu")))
        torch.testing.assert_close(together.states[index, : len(text)], alone.states[0])
        torch.testing.assert_close(together.pooled[index], alone.states[0].mean(0))
        assert not together.states[index, len(text) :].any()


def test_tokens_see_those_after_them_and_their_order(model):
    states = [model(*pad([text], torch.device("cpu"))).states[0, 0] for text in ([1, 2, 3], [1, 2, 4], [1, 3, 2])]
    assert (states[0] - states[1]).abs().max() > 1e-3
    assert (states[0] - states[2]).abs().max() > 1e-3


def test_empty_texts_are_zeros_and_trouble_no_one(model):
    ids, mask = pad([[], [3, 4]], torch.device("cpu"))
    beside = model(ids, mask)
    assert not beside.states[0].any()
    assert not beside.pooled[0].any()
    alone = model(*pad([[3, 4]], torch.device("cpu")))
    torch.testing.assert_close(beside.states[1], alone.states[0])
    nothing = model(*pad([[], []], torch.device("cpu")))
    assert (nothing.states.shape, nothing.mask.shape, nothing.pooled.shape) == ((2, 0, 16), (2, 0), (2, 16))


def test_gradients_reach_every_parameter_also_beside_an_empty_text():
    model = TextTransformer(CONFIG)
    model.init_weights(torch.Generator().manual_seed(0))
    model(*pad([[3, 4, 5], []], torch.device("cpu"))).states.pow(3).sum().backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, grad in grads.items() if grad is None or not grad.any() or not grad.isfinite().all()] == []


def test_the_default_is_small_beside_its_vocabulary():
    assert 3e6 < num_parameters(TextTransformerConfig(vocab_size=1)) < 4e6


def test_impossible_shapes_are_refused_by_field():
    with pytest.raises(ConfigError, match="hidden_size: 18 is not a multiple of 8"):
        TextTransformerConfig(vocab_size=5, hidden_size=18)
    with pytest.raises(ConfigError, match="vocab_size: 0"):
        TextTransformerConfig(vocab_size=0)
