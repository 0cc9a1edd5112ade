from __future__ import annotations

import torch

from kilonova.models.autoencoder.alpha import premultiply, unpremultiply


def picture(*, alpha):
    image = torch.rand(2, 4, 3, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image[:, 3] = alpha * 2 - 1
    return image


def test_the_colour_of_what_is_transparent_is_lost_and_comes_back_black():
    first, second = picture(alpha=0.0), picture(alpha=0.0)
    second[:, :3] = 0.7
    assert torch.equal(premultiply(first), premultiply(second))
    assert (unpremultiply(premultiply(first)) == -1).all()


def test_half_transparent_white_is_grey():
    image = torch.tensor([1.0, 1.0, -1.0, 0.0]).view(1, 4, 1, 1)
    assert premultiply(image).flatten().tolist() == [0.0, 0.0, -1.0, 0.0]


def test_what_can_be_seen_comes_back():
    for alpha in (1.0, 0.5, 1 / 255):
        image = picture(alpha=alpha)
        torch.testing.assert_close(unpremultiply(premultiply(image)), image, rtol=0, atol=1e-4)


def test_colours_beyond_their_alpha_and_values_out_of_range_are_clamped():
    wild = torch.tensor([[3.0, 0.9, -3.0, -0.5], [3.0, 0.9, -3.0, -1.4], [3.0, 0.9, -3.0, 1.4]])[:, :, None, None]
    assert unpremultiply(wild).flatten(1).tolist() == [
        [1.0, 1.0, -1.0, -0.5],
        [-1.0, -1.0, -1.0, -1.0],
        [1.0, torch.tensor(0.9).item(), -1.0, 1.0],
    ]
