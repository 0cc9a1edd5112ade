from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kilonova.core.errors import ConfigError
from kilonova.models.autoencoder.alpha import premultiply
from kilonova.models.autoencoder.config import AUTOENCODER_PRESETS, ImageAutoencoderConfig
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.sizing import autoencoder_flops, num_parameters

CONFIG = ImageAutoencoderConfig(
    latent_channels=6,
    block_out_channels=(16, 32),
    encoder_layers=(1, 1),
    decoder_layers=(1, 1),
    refine_channels=8,
    norm_num_groups=4,
)


def make(config=CONFIG):
    model = ImageAutoencoder(config)
    model.init_weights(torch.Generator().manual_seed(0))
    return model


def picture(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("norm_num_groups", [4, None])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 40), (64, 8)])
def test_latents_are_an_eighth_and_pictures_come_back_in_range(height, width, norm_num_groups):
    model = make(replace(CONFIG, norm_num_groups=norm_num_groups))
    latents = model.encode(picture(2, 4, height, width))
    assert latents.shape == (2, 6, height // 8, width // 8)
    reconstruction, again = model(picture(2, 4, height, width))
    assert torch.equal(again, latents)
    assert torch.equal(reconstruction, model.decode_premultiplied(latents))
    decoded = model.decode(10 * latents)
    assert decoded.shape == (2, 4, height, width)
    assert decoded.abs().max() <= 1


def test_the_colour_of_transparent_pixels_has_no_influence():
    model = make()
    image = picture(1, 4, 16, 16)
    image[:, 3, :, 8:] = -1
    recoloured = image.clone()
    recoloured[:, :3, :, 8:] = 0.3
    assert torch.equal(model.encode(image), model.encode(recoloured))
    seen = image.clone()
    seen[:, :3, :, :8] = 0.3
    assert not torch.equal(model.encode(image), model.encode(seen))


def test_it_learns_a_few_pictures():
    model = make()
    images = torch.ones(3, 4, 16, 16)
    images[0, 1:3, 4:12, 2:14] = -1
    images[1, 0, :, :8] = -1
    images[2, 3] = -1
    images[2, :, 3:9, 5:11] = 0.5
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        reconstruction, _ = model(images)
        loss = (reconstruction - premultiply(images)).abs().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


def test_gradients_reach_every_parameter():
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model.decode_premultiplied(model.encode(picture(2, 4, 16, 24))).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_it_runs_in_bfloat16():
    image = picture(1, 4, 16, 16)
    expected = make().decode(make().encode(image))
    model = make().bfloat16()
    decoded = model.decode(model.encode(image.bfloat16()))
    assert decoded.dtype == torch.bfloat16
    assert (decoded.float() - expected).square().mean() < 0.01 * expected.square().mean()


def test_statistics_normalise_latents_and_leave_pictures_alone():
    model = make()
    image = picture(4, 4, 32, 32)
    raw, decoded = model.encode(image), model.decode(model.encode(image))
    mean, std = raw.mean((0, 2, 3)), raw.std((0, 2, 3))
    model.set_latent_statistics(mean.tolist(), std.tolist())
    latents = model.encode(image)
    torch.testing.assert_close(latents, (raw - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1))
    torch.testing.assert_close(model.decode(latents), decoded, rtol=1e-4, atol=1e-4)
    assert ImageAutoencoderConfig.from_dict(model.config.to_dict()) == model.config


@pytest.mark.parametrize(("name", "millions", "giga"), [("small", (1.5, 2.5), (2.0, 3.0)), ("mid", (12, 16), (10, 13))])
def test_presets_have_the_sizes_they_are_meant_to(name, millions, giga):
    config = AUTOENCODER_PRESETS[name]
    assert millions[0] * 1e6 < num_parameters(config) < millions[1] * 1e6
    assert giga[0] * 1e9 < sum(autoencoder_flops(config, 128, 128)) < giga[1] * 1e9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_out_channels": (16, 24)}, "block_out_channels"),
        ({"block_out_channels": (16, 30), "norm_num_groups": None}, "block_out_channels"),
        ({"norm_num_groups": 5}, "block_out_channels: .* norm_num_groups"),
        ({"latents_mean": (0.0,) * 5}, "latents_mean: 5 values"),
        ({"latents_std": (0.0,) * 6}, "latents_std: 0.0"),
        ({"encoder_layers": (1, 0)}, "encoder_layers"),
    ],
)
def test_impossible_shapes_are_refused_by_field(changes, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        replace(CONFIG, **changes)


def test_pictures_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="image: 3 channels"):
        make().encode(picture(1, 3, 16, 16))
    with pytest.raises(ConfigError, match="image: 16 x 12 is not a multiple of 8"):
        make().encode(picture(1, 4, 16, 12))
    with pytest.raises(ConfigError, match="unknown key 'latent_chanels'"):
        ImageAutoencoderConfig.from_dict({**CONFIG.to_dict(), "latent_chanels": 4})
