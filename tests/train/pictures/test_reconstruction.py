"""Errors of reconstructions against what a viewer would see, in plain NumPy."""

from __future__ import annotations

import numpy as np
import torch

from kilonova.models.autoencoder.alpha import premultiply
from kilonova.train.pictures.reconstruction import (
    absolute_error,
    gradient_error,
    over_black_and_white,
    peak_signal_to_noise,
)


def _pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def _seen(straight: torch.Tensor) -> np.ndarray:
    """Ordinary compositing of a straight picture over black, then over white."""
    shares = (straight.numpy() + 1) / 2
    colours, alpha = shares[:, :3], shares[:, 3:]
    return np.concatenate([colours * alpha, colours * alpha + (1 - alpha)], axis=1)


def test_pictures_are_seen_over_black_and_over_white() -> None:
    straight = _pictures(0)
    np.testing.assert_allclose(over_black_and_white(premultiply(straight)).numpy(), _seen(straight), atol=1e-12)


def test_errors_are_those_of_what_is_seen() -> None:
    found, original = _pictures(1), _pictures(2)
    difference = _seen(found) - _seen(original)
    pair = (premultiply(found), premultiply(original))
    np.testing.assert_allclose(absolute_error(*pair).numpy(), np.abs(difference).mean((1, 2, 3)))
    np.testing.assert_allclose(peak_signal_to_noise(*pair).numpy(), 10 * np.log10(1 / (difference**2).mean((1, 2, 3))))
    expected = np.zeros(2)
    for scale in range(2):
        size = 8 // 2**scale
        small = difference.reshape(2, 6, size, 2**scale, size, 2**scale).mean((3, 5))
        expected += np.abs(np.diff(small, axis=2)).mean((1, 2, 3)) + np.abs(np.diff(small, axis=3)).mean((1, 2, 3))
    np.testing.assert_allclose(gradient_error(*pair, scales=2).numpy(), expected / 4)


def test_what_cannot_be_seen_is_no_error_and_noise_has_a_limit() -> None:
    original = _pictures(3)
    original[:, 3] = -1
    other = original.clone()
    other[:, :3] = 0.5
    assert absolute_error(premultiply(other), premultiply(original)).max() == 0
    assert (peak_signal_to_noise(premultiply(other), premultiply(original)) == 100).all()
    # A reconstruction is shown clamped.
    white = torch.ones(1, 4, 8, 8)
    assert peak_signal_to_noise(white * 1.5, white) == 100
