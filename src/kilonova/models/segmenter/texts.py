"""The names and phrases that pictures are asked for, as states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kilonova.core.errors import ConfigError
from kilonova.models.text_encoder.states import TextEncoder


@dataclass(frozen=True)
class Questions:
    """For each of B pictures up to K names or phrases, of T tokens in all.

    `states` `[B, T, hidden]` are those of the tokens, 0 where there is none; `membership` bool `[B, K, T]` says which
    tokens are of which text.
    """

    states: Tensor
    membership: Tensor

    @property
    def token_mask(self) -> Tensor:
        """Which tokens are there, bool `[B, T]`."""
        return self.membership.any(1)

    @property
    def text_mask(self) -> Tensor:
        """Which texts are there, bool `[B, K]`."""
        return self.membership.any(2)


def encode_questions(encoder: TextEncoder, texts: Sequence[Sequence[str]]) -> Questions:
    """States of each picture's `texts`; a text that is asked of several pictures is encoded once.

    Capitals, and stops at the end, make no difference. ConfigError for a text without tokens.
    """
    texts = [[text.strip().rstrip(".!?").lower() for text in row] for row in texts]
    distinct = list(dict.fromkeys(text for row in texts for text in row))
    encoded = encoder.encode(distinct)
    lengths = dict(zip(distinct, encoded.mask.sum(1).tolist(), strict=True))
    if empty := [text for text, length in lengths.items() if not length]:
        raise ConfigError(f"texts: {empty[0]!r} has no tokens")
    numbers = {text: number for number, text in enumerate(distinct)}
    width = max((sum(lengths[text] for text in row) for row in texts), default=0)
    # A place after the last stands for no token.
    places = torch.full((len(texts), width), encoded.mask.numel())
    membership = torch.zeros(len(texts), max(map(len, texts), default=0), width, dtype=torch.bool)
    for picture, row in enumerate(texts):
        start = 0
        for number, text in enumerate(row):
            part = slice(start, start + lengths[text])
            first = numbers[text] * encoded.mask.shape[1]
            places[picture, part] = torch.arange(first, first + lengths[text])
            membership[picture, number, part] = True
            start = part.stop
    device = encoded.states.device
    flat = torch.cat((encoded.states.flatten(0, 1), encoded.states.new_zeros(1, encoded.states.shape[-1])))
    return Questions(flat[places.to(device)], membership.to(device))
