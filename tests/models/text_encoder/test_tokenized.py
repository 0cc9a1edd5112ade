from __future__ import annotations

import pytest
import torch

from kilonova.core.errors import ConfigError
from kilonova.models.checkpoint import load_decoder
from kilonova.models.text_encoder.config import TextTransformerConfig
from kilonova.models.text_encoder.model import TextTransformer
from kilonova.models.text_encoder.tokenized import DecoderTextEncoder, TransformerTextEncoder
from kilonova.text.tokenizer import Tokenizer

TEXTS = ["a red fox", "", "seven wizards quietly vex a judge under bright lights"]


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_directory):
    return Tokenizer.from_directory(tiny_tokenizer_directory)


def make(tokenizer, **changes):
    shape = {"vocab_size": 512, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    model = TextTransformer(TextTransformerConfig(**{**shape, "num_hidden_layers": 1, **changes}))
    model.init_weights(torch.Generator().manual_seed(0))
    return TransformerTextEncoder(model, tokenizer)


def test_texts_become_the_states_of_their_tokens(tokenizer):
    encoder = make(tokenizer)
    given = encoder.encode(TEXTS)
    lengths = [len(tokenizer.encode(text)) for text in TEXTS]
    assert given.mask.sum(1).tolist() == lengths
    assert given.states.shape == (3, max(lengths), encoder.hidden_size)
    ids = torch.tensor([tokenizer.encode(TEXTS[0])])
    torch.testing.assert_close(given.states[0, : lengths[0]], encoder.model(ids, ids >= 0).states[0])
    assert given.states.requires_grad


def test_long_texts_are_cut(tokenizer):
    encoder = make(tokenizer, max_position_embeddings=4)
    longer, cut = encoder.encode([TEXTS[2]]), encoder.encode([TEXTS[2] + " and more"])
    assert longer.mask.shape == (1, 4)
    assert torch.equal(longer.states, cut.states)


def test_the_decoders_states_are_those_before_its_last_layer(tiny_micro_directory, tokenizer):
    from transformers import AutoModelForCausalLM

    encoder = DecoderTextEncoder(load_decoder(tiny_micro_directory), tokenizer)
    reference = AutoModelForCausalLM.from_pretrained(tiny_micro_directory, dtype=torch.float32)
    given = encoder.encode(TEXTS)
    assert given.states.shape[2] == encoder.hidden_size == 64
    for index in (0, 2):
        ids = torch.tensor([tokenizer.encode(TEXTS[index])])
        with torch.no_grad():
            expected = reference(ids, output_hidden_states=True).hidden_states[-2][0]
        torch.testing.assert_close(given.states[index][given.mask[index]], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(given.pooled[index], expected.mean(0), rtol=1e-4, atol=1e-5)
    assert not given.states[1].any()
    assert encoder.encode([""]).states.shape == (1, 0, 64)


def test_a_tokenizer_with_more_tokens_than_the_network_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="vocab_size: the tokenizer has 512 tokens, the network 100"):
        make(tokenizer, vocab_size=100)
