"""Paper dolls and what they wear."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from kilonova.data.world.colours import COLOURS
from kilonova.data.world.dolls import PARTS, render_doll, render_garment
from kilonova.data.world.dolls_garments import GARMENTS, Garment
from kilonova.data.world.dolls_sampling import SKINS, Doll, doll_caption, garment_caption, sample_doll
from kilonova.data.world.scene import Background
from kilonova.studio.tasks import GarmentClass

SIZE = (96, 96)


def dressed(*garments: Garment, pose: int = 0) -> Doll:
    return Doll(pose, 0, "short", "black", 1.0, 0.5, 1.0, garments, background=Background("plain", "white"))


def test_a_doll_is_a_function_of_its_seed_and_drawn_at_any_size() -> None:
    assert sample_doll((0, 3)) == sample_doll((0, 3))
    assert len({sample_doll((0, index)) for index in range(20)}) == 20
    doll = sample_doll((0, 3))
    for size in (SIZE, (64, 48)):
        drawn = render_doll(doll, size)
        assert drawn.image.shape == (size[1], size[0], 4)
        assert (drawn.image[..., 3] == 255).all()
        assert np.array_equal(drawn.image, render_doll(doll, size).image)


@pytest.mark.parametrize("name", list(GARMENTS))
def test_a_garment_is_where_its_mask_is_and_alone_in_its_picture(name: str) -> None:
    kind = GARMENTS[name]
    assert kind.garment_class in get_args(GarmentClass)
    bare, worn = (render_doll(dressed(*garments), SIZE) for garments in ((), (Garment(name, "blue"),)))
    mask = worn.parts[kind.slot]
    assert mask.mean() > 0.003
    assert not bare.parts[kind.slot].any()
    changed = (bare.image[..., :3].astype(int) - worn.image[..., :3]).any(-1)
    assert (changed & ~mask).mean() < 0.04
    own_colour = (np.abs(worn.image[mask][:, :3].astype(int) - COLOURS["blue"]) <= 2).all(-1)
    assert own_colour.mean() > 0.15
    alone = render_garment(Garment(name, "blue"), SIZE)
    shown = (alone[..., :3] < 200).any(-1)
    assert shown.mean() > 0.08
    assert (alone[[0, -1, 0, -1], [0, 0, -1, -1]] == 255).all()


def test_parts_of_the_body_have_the_colour_of_skin_and_do_not_overlap() -> None:
    drawn = render_doll(dressed(pose=4), SIZE)
    assert list(drawn.parts) == list(PARTS)
    assert np.sum(list(drawn.parts.values()), axis=0).max() == 1
    for name in ("arms", "legs", "body"):
        median = np.median(drawn.image[drawn.parts[name]][:, :3], axis=0)
        assert median.tolist() == pytest.approx(SKINS[0], abs=2), name
    assert drawn.parts["hands"].any(0).nonzero()[0].min() < drawn.parts["face"].any(0).nonzero()[0].min()
    assert set(np.unique(drawn.labels[drawn.parts["face"]])) == {drawn.labels[drawn.parts["face"]][0]}


def test_tucked_and_open_can_be_seen() -> None:
    shirt, pants = Garment("T-shirt", "red"), Garment("long pants", "blue")
    out = render_doll(dressed(shirt, pants), SIZE)
    tucked = render_doll(replace(dressed(shirt, pants), tucked=True), SIZE)
    assert tucked.parts["upper"].sum() < 0.95 * out.parts["upper"].sum()
    shown = [
        render_doll(dressed(shirt, pants, Garment(f"{how} jacket", "green")), SIZE).parts["upper"].sum()
        for how in ("open", "closed")
    ]
    assert shown[0] > 5 * shown[1]


def test_captions_tell_what_is_worn() -> None:
    rng = np.random.default_rng(0)
    doll = dressed(Garment("T-shirt", "red", "striped"), Garment("shorts", "blue"), Garment("boots", "black"))
    text = doll_caption(doll, rng).lower()
    assert "short black hair" in text
    for words in ("a striped red t-shirt", "blue shorts", "black boots"):
        assert words in text
    assert "an orange skirt" in garment_caption(Garment("skirt", "orange"), rng)
