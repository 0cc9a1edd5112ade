"""A random Canvas of a few thousand weights, and a segmenter that goes by colour alone, for tests of what uses them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kilonova.models.autoencoder.config import ImageAutoencoderConfig
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.components import Component, save_folder
from kilonova.models.segmenter.config import MixedQuerySegmenterConfig
from kilonova.models.segmenter.model import MixedQuerySegmenter
from kilonova.models.text_encoder.config import TextTransformerConfig
from kilonova.models.text_encoder.model import TextTransformer
from kilonova.models.uvit.config import UViTConfig
from kilonova.models.uvit.model import UViT
from kilonova.studio.segmentation import Segment
from kilonova.text.bpe import END_OF_TEXT, train_tokenizer
from kilonova.text.tokenizer import Tokenizer

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "black": (0, 0, 0)}

_WORDS = "a red apple, a green leaf and a blue ball on a white table: one picture, two pictures, a person in a shirt. "


def write_tiny_canvas(directory: Path, *, few_step: bool = False, segmenter: bool = False) -> Path:
    """Write a folder as an export of training does, for pictures of about 64 x 64; the answer is the folder itself.

    With `segmenter` it has one, which finds things anywhere.
    """
    generator = torch.Generator().manual_seed(0)
    backend = train_tokenizer([_WORDS] * 4, 300)
    tokenizer = Tokenizer(backend, None, backend.token_to_id(END_OF_TEXT), frozenset())
    text_encoder = TextTransformer(
        TextTransformerConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=32,
        )
    )
    autoencoder = ImageAutoencoder(
        ImageAutoencoderConfig(
            latent_channels=4,
            block_out_channels=(16, 16),
            encoder_layers=(1, 1),
            decoder_layers=(1, 1),
            refine_channels=8,
            norm_num_groups=4,
            latents_mean=(0.0,) * 4,
            latents_std=(0.5,) * 4,
        )
    )
    transformer = UViT(
        UViTConfig(
            in_channels=4,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            text_hidden_size=16,
            step_size_embeds=few_step,
        )
    )
    finder = MixedQuerySegmenter(
        MixedQuerySegmenterConfig(
            sample_size=64,
            block_out_channels=(8, 8, 16),
            norm_num_groups=4,
            hidden_size=16,
            num_attention_heads=2,
            num_encoder_layers=1,
            num_fusion_layers=1,
            num_decoder_layers=1,
            num_queries=4,
            text_hidden_size=16,
        )
    )
    for network in (text_encoder, autoencoder, transformer, finder):
        network.init_weights(generator)
    with torch.no_grad():
        # Fresh networks answer 0, whatever they are given.
        for weight in (transformer.proj_out.weight, transformer.inpaint_embed.proj.weight):
            weight.normal_(std=0.2, generator=generator)
        autoencoder.decoder.conv_out.weight.mul_(4)
    scheduler = {
        "_class_name": "RectifiedFlow",
        "base_tokens": 64,
        "sizes": [[64, 64], [80, 48], [48, 80], [128, 32], [32, 128]],
        "styles": {"DESIGN_SKETCH": "outlined", "PHOTOREALISM": "photo of {text}"},
        "num_inference_steps": {"standard": 2, "premium": 4},
        "sampler": "euler",
        "guidance_start": 0.0,
        "guidance_end": 1.0,
        "guidance_rescale": 0.0,
        "few_step": few_step,
    }
    components: dict[str, Component] = {
        "transformer": transformer,
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "vae": autoencoder,
        "scheduler": scheduler,
    }
    save_folder(components, directory, "KilonovaCanvasPipeline")
    if segmenter:
        parts: dict[str, Component] = {"segmenter": finder, "text_encoder": text_encoder, "tokenizer": tokenizer}
        save_folder(parts, directory / "segmenter", "KilonovaSegmenter")
    return directory


class ColourSegmenter:
    """Takes white for background, and finds what a phrase names by the colour of `COLOURS` in it; a `Segmenter`."""

    def foreground(self, picture: np.ndarray) -> np.ndarray:
        return 1 - (picture.min(axis=-1) / 255).astype(np.float32)

    def refer(self, picture: np.ndarray, phrase: str) -> np.ndarray:
        found = np.zeros(picture.shape[:2], np.float32)
        for name, colour in COLOURS.items():
            if name in phrase:
                found = np.maximum(found, _near(picture, colour))
        return found

    def instances(self, picture: np.ndarray, names: Sequence[str]) -> list[Segment]:
        found = [Segment(name, 1.0, self.refer(picture, name) > 0.5) for name in names]
        return [segment for segment in found if segment.mask.any()]

    def semantic(self, picture: np.ndarray, names: Sequence[str]) -> np.ndarray:
        answer = np.full(picture.shape[:2], -1, np.int64)
        for index, name in enumerate(names):
            answer[self.refer(picture, name) > 0.5] = index
        return answer


def _near(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    distance = np.abs(picture.astype(np.float32) - np.asarray(colour, np.float32)).max(axis=-1)
    return (distance < 40).astype(np.float32)
