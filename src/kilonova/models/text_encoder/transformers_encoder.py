"""CLIP and T5 text encoders, as transformers reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kilonova.core.errors import CheckpointError, ConfigError
from kilonova.models.text_encoder.states import TextStates, masked_states

_CLIP_TYPES = ("clip", "clip_text_model")
_T5_TYPES = ("t5",)


class TransformersTextEncoder:
    """A frozen CLIP or T5 text encoder: CLIP's states before its last layer and its summary, T5's last states.

    `model` and `tokenizer` are transformers'; texts are cut to `max_length` tokens. An empty text has no tokens, also
    where the model would have put some around it. ConfigError for other models.
    """

    def __init__(self, model: Any, tokenizer: Any, max_length: int = 77) -> None:
        self._is_clip = _is_clip(model.config.model_type)
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.max_length = max_length

    @classmethod
    def from_directory(
        cls,
        model_directory: str | Path,
        tokenizer_directory: str | Path,
        dtype: torch.dtype = torch.float32,
        max_length: int = 77,
    ) -> TransformersTextEncoder:
        """Read a diffusers folder's `text_encoder` and `tokenizer`; CheckpointError if transformers cannot."""
        from transformers import AutoConfig, AutoTokenizer, CLIPTextModel, T5EncoderModel

        try:
            config = AutoConfig.from_pretrained(model_directory, local_files_only=True)
            architecture: Any = CLIPTextModel if _is_clip(config.model_type) else T5EncoderModel
            model = architecture.from_pretrained(model_directory, dtype=dtype, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory, local_files_only=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{model_directory}: not readable by transformers: {error}") from error
        return cls(model, tokenizer, max_length)

    @property
    def hidden_size(self) -> int:
        """The last dimension of the states."""
        return self.model.config.hidden_size

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> TextStates:
        """States of `texts`."""
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        ).to(self.model.device)
        given = torch.tensor([bool(text) for text in texts], device=self.model.device)
        mask = batch.attention_mask.bool() & given[:, None]
        output = self.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=self._is_clip
        )
        if self._is_clip:
            return masked_states(output.hidden_states[-2], mask, output.pooler_output * given[:, None])
        return masked_states(output.last_hidden_state, mask)


def _is_clip(model_type: str) -> bool:
    if model_type not in (*_CLIP_TYPES, *_T5_TYPES):
        allowed = ", ".join((*_CLIP_TYPES, *_T5_TYPES))
        raise ConfigError(f"model_type: {model_type!r} is not a text encoder that is read; allowed: {allowed}")
    return model_type in _CLIP_TYPES
