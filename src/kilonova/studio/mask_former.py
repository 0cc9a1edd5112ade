"""A segmenter with mixed queries behind the studio's interface: any picture, any words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from kilonova.core.errors import CheckpointError, InvalidRequest
from kilonova.models.components import load_folder
from kilonova.models.segmenter.model import TOKEN_SIZE, Answers, MixedQuerySegmenter
from kilonova.models.segmenter.pixels import PictureFeatures
from kilonova.models.segmenter.post_process import certainty, instances, semantic
from kilonova.models.segmenter.texts import encode_questions
from kilonova.models.text_encoder.model import TextTransformer
from kilonova.models.text_encoder.tokenized import TransformerTextEncoder
from kilonova.studio.guided_upsampling import guided_upsampling, luma
from kilonova.studio.segmentation import Segment
from kilonova.text.tokenizer import Tokenizer


class MaskFormer:
    """A `Segmenter` for one caller at a time.

    Pictures are looked at at about the model's own size, whatever theirs is. The one seen last is remembered, so that
    more questions about it cost less.
    """

    def __init__(self, model: MixedQuerySegmenter, text_encoder: TransformerTextEncoder) -> None:
        self._model = model
        self._text_encoder = text_encoder
        self._seen: tuple[np.ndarray, Image.Image, PictureFeatures] | None = None

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Self:
        """The model of a folder that training exported, in float32.

        CheckpointError or ConfigError for a folder that lacks something, or whose parts do not fit.
        """
        found = load_folder(folder, torch.float32, device)
        model, text_encoder, tokenizer = map(found.get, ("segmenter", "text_encoder", "tokenizer"))
        if not isinstance(model, MixedQuerySegmenter):
            raise CheckpointError(f"{folder}: its segmenter is no MixedQuerySegmenter")
        if not isinstance(text_encoder, TextTransformer) or not isinstance(tokenizer, Tokenizer):
            raise CheckpointError(f"{folder}: a text_encoder, a TextTransformer, and its tokenizer are expected")
        return cls(model, TransformerTextEncoder(text_encoder, tokenizer))

    @torch.inference_mode()
    def foreground(self, picture: np.ndarray) -> np.ndarray:
        """As `Segmenter`; borders follow the picture's luma at its own size."""
        small, features = self._features(picture)
        alpha = features.alpha_logits[0].sigmoid().cpu().numpy()
        return guided_upsampling(alpha, luma(np.asarray(small)), luma(picture))

    @torch.inference_mode()
    def refer(self, picture: np.ndarray, phrase: str) -> np.ndarray:
        """As `Segmenter`; a phrase may mean several things. InvalidRequest for one without words."""
        return self._certainty(picture, [phrase])[0].numpy()

    @torch.inference_mode()
    def instances(self, picture: np.ndarray, names: Sequence[str]) -> list[Segment]:
        """As `Segmenter`; each thing has the name that fits it best. InvalidRequest for a name without words."""
        found = []
        for one in instances(self._answers(picture, names), 0) if names else []:
            mask = _resampled(one.mask_logits[None], picture.shape[:2])[0] > 0
            found.append(Segment(names[one.text], one.score, mask.numpy()))
        return found

    @torch.inference_mode()
    def semantic(self, picture: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """As `Segmenter`; InvalidRequest for a name without words."""
        if not names:
            return np.full(picture.shape[:2], -1, np.int64)
        return semantic(self._certainty(picture, names)[None])[0].numpy()

    def _certainty(self, picture: np.ndarray, texts: Sequence[str]) -> Tensor:
        """How surely each pixel belongs to each text, `[K, height, width]`."""
        answers = self._answers(picture, texts)
        height, width = answers.mask_logits.shape[2:]
        native = interpolate(answers.mask_logits, (2 * height, 2 * width), mode="bilinear", align_corners=False)
        return _resampled(certainty(answers, native)[0], picture.shape[:2])

    def _answers(self, picture: np.ndarray, texts: Sequence[str]) -> Answers:
        for text in texts:
            if not text.strip(" .!?"):
                raise InvalidRequest(f"{text!r} has no words that could be looked for")
        _, features = self._features(picture)
        last = self._model.decode(features, encode_questions(self._text_encoder, [texts]))[-1]
        return Answers(last.class_logits.cpu(), last.mask_logits.cpu())

    def _features(self, picture: np.ndarray) -> tuple[Image.Image, PictureFeatures]:
        """The picture at the model's size, and its features there."""
        if self._seen is None or not np.array_equal(self._seen[0], picture):
            height, width = picture.shape[:2]
            size = native_size(width, height, self._model.config.sample_size)
            small = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
            pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 127.5 - 1
            features = self._model.encode(pixels.to(self._text_encoder.model.embed_tokens.weight.device))
            self._seen = picture.copy(), small, features
        return self._seen[1:]


def native_size(width: int, height: int, sample_size: int) -> tuple[int, int]:
    """The width and height, multiples of 16, of about `sample_size` squared pixels in all and the same aspect."""
    scale = sample_size / math.sqrt(width * height) / TOKEN_SIZE
    return max(1, round(width * scale)) * TOKEN_SIZE, max(1, round(height * scale)) * TOKEN_SIZE


def _resampled(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """`maps` `[N, h, w]` at `size` (height, width)."""
    return interpolate(maps[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
