"""Training of an image autoencoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kilonova.core.errors import ConfigError
from kilonova.data.pictures.batches import PictureBatch
from kilonova.models.autoencoder.alpha import premultiply
from kilonova.models.autoencoder.config import ImageAutoencoderConfig
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.components import load_component, save_component
from kilonova.models.sizing import autoencoder_flops
from kilonova.train.objective import Loss
from kilonova.train.pictures.context import PictureContext
from kilonova.train.pictures.recipe import PictureRecipe
from kilonova.train.pictures.reconstruction import absolute_error, gradient_error, peak_signal_to_noise

_SPATIAL_FACTOR = 8
# Steps' worth of pictures on which the mean and the deviation of latents are measured.
_STATISTICS_STEPS = 32


class AutoencoderObjective:
    """The error of reconstructed pictures; the items are pictures."""

    def __init__(self, context: PictureContext) -> None:
        recipe = context.recipe
        model = _starting_model(recipe)
        self.trained: nn.Module = model
        self._model = model.to(context.device)
        self._context = context
        self._section = recipe.autoencoder
        self.micro_batches = context.batches()
        width, height = recipe.pictures.sizes[0]
        positions = width // _SPATIAL_FACTOR * (height // _SPATIAL_FACTOR)
        self.tokens_per_step = recipe.batch_size * positions
        # A backward pass costs twice a forward pass.
        self.flops_per_token = 3 * sum(autoencoder_flops(model.config, height, width)) / positions
        self._reconstruct = torch.compile(self._encode_decode) if recipe.compile else self._encode_decode
        self._validation = context.validation_batches()

    def num_items(self, batch: PictureBatch) -> int:
        return len(batch.images)

    def loss(self, batch: PictureBatch) -> Loss:
        images = batch.images.to(self._context.device)
        with self._context.autocast():
            latents, found = self._reconstruct(images)
        found, original = found.float(), premultiply(images)
        absolute = absolute_error(found, original)
        gradient = gradient_error(found, original)
        size = latents.float().square().mean((1, 2, 3))
        total = absolute + self._section.gradient_weight * gradient + self._section.latent_weight * size
        metrics = {"absolute_error": absolute.detach().sum(), "gradient_error": gradient.detach().sum()}
        return Loss(total.sum(), metrics)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The mean peak signal-to-noise ratio of each validation source, in dB."""
        results = {}
        for name, batches in self._validation.items():
            ratios = []
            for batch in batches:
                images = batch.images.to(self._context.device)
                with self._context.autocast():
                    _, found = self._encode_decode(images)
                ratios.append(peak_signal_to_noise(found.float(), premultiply(images)))
            results[f"{name} PSNR"] = float(torch.cat(ratios).mean())
        return results

    @torch.no_grad()
    def export(self, directory: Path) -> None:
        """Write the component, with the mean and the deviation of its latents on pictures it was trained on."""
        latents = [
            self._model.encode(batch.images.to(self._context.device)).double().cpu().transpose(0, 1).flatten(1)
            for step in range(_STATISTICS_STEPS)
            for batch in self.micro_batches(step)
        ]
        std, mean = torch.std_mean(torch.cat(latents, dim=1), dim=1)
        self._model.set_latent_statistics(mean.tolist(), std.tolist())
        save_component(self._model, directory, dtype=getattr(torch, self._context.recipe.save_dtype))

    def step_done(self) -> None:
        pass

    def data_record(self) -> dict[str, Any]:
        return self._context.pictures_record()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def _encode_decode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Latents, and what they are decoded into: premultiplied and not clamped."""
        latents = self._model.encode(images)
        return latents, self._model.decode_premultiplied(latents)


def _starting_model(recipe: PictureRecipe) -> ImageAutoencoder:
    """The model the recipe starts from, in float32 on the CPU, without statistics of its latents."""
    section = recipe.model
    if section.init_from is not None:
        model = load_component(section.init_from, dtype=torch.float32)
        if not isinstance(model, ImageAutoencoder):
            raise ConfigError(f"model.init_from: {section.init_from} holds a {type(model).__name__}, no autoencoder")
        model.config = replace(model.config, latents_mean=None, latents_std=None)
        return model.train()
    model = ImageAutoencoder(ImageAutoencoderConfig.from_dict(section.config or {}))
    model.init_weights(torch.Generator().manual_seed(recipe.seed))
    return model
