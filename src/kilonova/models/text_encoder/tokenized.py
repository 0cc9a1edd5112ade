"""Text encoders of this package's own: the text transformer, and a language model's hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kilonova.core.errors import ConfigError
from kilonova.models.decoder.model import Decoder
from kilonova.models.text_encoder.model import TextTransformer
from kilonova.models.text_encoder.states import TextStates, masked_states, pad
from kilonova.nn.attention import PackedCausalAttention
from kilonova.text.tokenizer import Tokenizer


class TransformerTextEncoder:
    """A `TextTransformer` behind its tokenizer; gradients flow through it.

    ConfigError for a tokenizer of more tokens than the network has.
    """

    def __init__(self, model: TextTransformer, tokenizer: Tokenizer) -> None:
        _check_vocabulary(tokenizer, model.config.vocab_size)
        self.model = model
        self.tokenizer = tokenizer

    @property
    def hidden_size(self) -> int:
        """The last dimension of the states."""
        return self.model.config.hidden_size

    def encode(self, texts: Sequence[str]) -> TextStates:
        """States of `texts`, cut to the network's `max_position_embeddings`."""
        limit = self.model.config.max_position_embeddings
        ids, mask = pad([self.tokenizer.encode(text)[:limit] for text in texts], self.model.embed_tokens.weight.device)
        return self.model(ids, mask)


class DecoderTextEncoder:
    """The hidden states of a frozen language model before its last layer.

    Texts are cut to `max_length` tokens. ConfigError for a tokenizer of more tokens than the model has.
    """

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, max_length: int = 256) -> None:
        _check_vocabulary(tokenizer, decoder.config.vocab_size)
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.max_length = max_length

    @property
    def hidden_size(self) -> int:
        """The last dimension of the states."""
        return self.decoder.config.hidden_size

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> TextStates:
        """States of `texts`; each has seen the tokens before it alone."""
        stack = self.decoder.model
        device = stack.embed_tokens.weight.device
        ids, mask = pad([self.tokenizer.encode(text)[: self.max_length] for text in texts], device)
        x = stack.embed_tokens(ids)
        if ids.shape[1]:
            rotary = stack.rotary(torch.arange(ids.shape[1], device=device), x.dtype)
            attend = PackedCausalAttention()
            for layer in stack.layers[:-1]:
                x = layer(x, rotary, attend)
        return masked_states(x, mask)


def _check_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> None:
    if tokenizer.vocab_size > vocab_size:
        raise ConfigError(f"vocab_size: the tokenizer has {tokenizer.vocab_size} tokens, the network {vocab_size}")
