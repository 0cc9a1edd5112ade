"""The networks that a run of training a flow starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kilonova.core.errors import ConfigError
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.components import build_component, load_component, load_folder, read_config
from kilonova.models.dit.model import DiT
from kilonova.models.text_encoder.config import TextTransformerConfig
from kilonova.models.text_encoder.model import TextTransformer
from kilonova.models.unet.model import UNet
from kilonova.models.uvit.model import UViT
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.pictures.recipe import PictureRecipe


@dataclass(frozen=True)
class Parts:
    """Networks in float32 on the CPU, and the tokenizer."""

    transformer: UViT | DiT | UNet
    text_encoder: TextTransformer
    tokenizer: Tokenizer
    autoencoder: ImageAutoencoder


def starting_parts(recipe: PictureRecipe) -> Parts:
    """What the recipe names, fresh networks drawn with its seed. ConfigError for parts of the wrong kind."""
    if recipe.model.init_from is not None:
        found = load_folder(recipe.model.init_from, dtype=torch.float32)
        transformer, text_encoder, tokenizer, autoencoder = map(
            found.get, ("transformer", "text_encoder", "tokenizer", "vae")
        )
    else:
        generator = torch.Generator().manual_seed(recipe.seed)
        autoencoder = load_component(recipe.flow.autoencoder or "", dtype=torch.float32)
        tokenizer = Tokenizer.from_directory(recipe.flow.tokenizer or "")
        text_encoder = TextTransformer(
            TextTransformerConfig.from_dict({"vocab_size": tokenizer.vocab_size, **recipe.flow.text_encoder})
        )
        text_encoder.init_weights(generator)
        transformer = build_component(read_config(recipe.model.config or {}, "model.config"))
        if isinstance(transformer, UViT | DiT | UNet):
            transformer.init_weights(generator)
    if not isinstance(transformer, UViT | DiT | UNet):
        raise ConfigError(f"model: {type(transformer).__name__} is no backbone; allowed: UViT, DiT, UNet")
    if not isinstance(text_encoder, TextTransformer) or not isinstance(tokenizer, Tokenizer):
        raise ConfigError(f"model.init_from: {recipe.model.init_from} lacks a text_encoder or a tokenizer to train on")
    if not isinstance(autoencoder, ImageAutoencoder) or autoencoder.config.latents_std is None:
        raise ConfigError("flow.autoencoder: an ImageAutoencoder with latents_mean and latents_std is expected")
    _check_sizes(transformer, text_encoder, autoencoder)
    for network in (transformer, text_encoder):
        network.train()
    return Parts(transformer, text_encoder, tokenizer, autoencoder)


def _check_sizes(transformer: UViT | DiT | UNet, text_encoder: TextTransformer, autoencoder: ImageAutoencoder) -> None:
    for name, found, expected in (
        ("in_channels", transformer.config.in_channels, autoencoder.config.latent_channels),
        ("text_hidden_size", transformer.config.text_hidden_size, text_encoder.config.hidden_size),
    ):
        if found != expected:
            raise ConfigError(f"model.config.{name}: {found}, but its input has {expected}")
