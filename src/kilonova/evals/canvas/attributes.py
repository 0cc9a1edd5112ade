"""Attributes of pictures as a classifier sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kilonova.core.errors import ConfigError
from kilonova.models.classifier.model import AttributeClassifier
from kilonova.models.classifier.pictures import to_tensor
from kilonova.models.components import load_component

_BATCH = 64


class Attributes(Protocol):
    """Says what pictures, uint8 `[H, W, 3 or 4]`, are like."""

    @property
    def heads(self) -> Mapping[str, tuple[str, ...]]:
        """The values that each attribute may have."""

    def probabilities(self, name: str, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """How likely each value of an attribute is, float64 `[pictures, values]`."""

    def features(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """What is seen, in numbers, float64 `[pictures, D]`."""


class NetworkAttributes:
    """The attributes that a trained classifier tells."""

    def __init__(self, model: AttributeClassifier, device: str | torch.device = "cpu") -> None:
        self._model = model.to(device).eval()
        self._device = device

    @classmethod
    def load(cls, directory: str | Path, device: str | torch.device = "cpu") -> NetworkAttributes:
        """Read what `kilonova train canvas/classifier` wrote; ConfigError for another component."""
        model = load_component(directory, torch.float32)
        if not isinstance(model, AttributeClassifier):
            raise ConfigError(f"classifier: {directory} holds a {type(model).__name__}, no AttributeClassifier")
        return cls(model, device)

    @property
    def heads(self) -> Mapping[str, tuple[str, ...]]:
        return self._model.config.heads

    @torch.no_grad()
    def probabilities(self, name: str, pictures: Sequence[np.ndarray]) -> np.ndarray:
        if name not in self.heads:
            raise ConfigError(f"classifier: has no attribute {name!r}; it has {', '.join(self.heads)}")
        if not pictures:
            return np.zeros((0, len(self.heads[name])))
        found = [self._model(batch)[name].double().softmax(1).cpu() for batch in self._batches(pictures)]
        return torch.cat(found).numpy()

    @torch.no_grad()
    def features(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return torch.cat([self._model.features(batch).double().cpu() for batch in self._batches(pictures)]).numpy()

    def _batches(self, pictures: Sequence[np.ndarray]) -> Iterator[Tensor]:
        size = self._model.config.image_size
        for start in range(0, len(pictures), _BATCH):
            yield to_tensor(pictures[start : start + _BATCH], size).to(self._device)
