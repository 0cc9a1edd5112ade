"""Words for a model: styles, and texts encoded once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from kilonova.models.text_encoder.states import TextEncoder, TextStates
from kilonova.studio.tasks import Style

_CACHED_TEXTS = 256


def with_style(text: str, style: Style | None, styles: Mapping[str, str]) -> str:
    """`text` with the words that `styles` has for `style`: after a comma, or around it where they hold "{text}".

    A style that the model has no words for goes by its own name.
    """
    if style is None:
        return text
    words = styles.get(style, style.replace("_", " ").lower())
    return words.replace("{text}", text) if "{text}" in words else f"{text}, {words}"


class CachedTexts:
    """A text encoder that remembers the last 256 texts; without gradients."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._cached = lru_cache(_CACHED_TEXTS)(self._encode)

    def __call__(self, text: str) -> TextStates:
        """States of one text, `[1, T, hidden]`; T is 0 for an empty one."""
        return self._cached(text)

    @torch.inference_mode()
    def _encode(self, text: str) -> TextStates:
        return self._encoder.encode([text] if text.strip() else [""])


def stack_texts(parts: list[TextStates], count: int) -> tuple[Tensor, Tensor]:
    """States `[B, T, hidden]` and mask `[B, T]` of each of `parts` `count` times over, padded to the longest."""
    length = max(part.states.shape[1] for part in parts)
    states = [torch.nn.functional.pad(part.states, (0, 0, 0, length - part.states.shape[1])) for part in parts]
    masks = [torch.nn.functional.pad(part.mask, (0, length - part.mask.shape[1])) for part in parts]
    return (
        torch.cat([state.expand(count, -1, -1) for state in states]),
        torch.cat([mask.expand(count, -1) for mask in masks]),
    )
