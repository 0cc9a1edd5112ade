from __future__ import annotations

from types import SimpleNamespace

import pytest

from kilonova.studio.diffusers.families import FAMILIES
from kilonova.studio.diffusers.sampling import buckets, sampling_settings
from kilonova.studio.sizes import nearest_size


@pytest.mark.parametrize(("side", "multiple"), [(1024, 32), (512, 16), (64, 16)])
def test_buckets_have_the_area_of_the_square(side, multiple):
    sizes = buckets(side, multiple)
    assert sizes[0] == (side, side)
    assert len(set(sizes)) == len(sizes)
    for width, height in sizes:
        assert width % multiple == height % multiple == 0
        assert 1 / 4 <= width / height <= 4
        assert 0.7 < width * height / side**2 < 1.3


def test_a_wide_picture_gets_a_wide_bucket():
    assert nearest_size(1280, 720, buckets(1024, 16)) == (1344, 768)


@pytest.mark.parametrize(("guided", "steps"), [(True, 28), (False, 4)])
def test_a_flux_without_guidance_takes_few_steps(guided, steps):
    transformer = SimpleNamespace(config={"guidance_embeds": guided})
    pipeline = SimpleNamespace(components={"transformer": transformer}, default_sample_size=128, vae_scale_factor=8)
    settings = sampling_settings(pipeline, FAMILIES["FluxPipeline"])
    assert settings.num_inference_steps.standard == steps
    assert settings.sizes[0] == (1024, 1024)
