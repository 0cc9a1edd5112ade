"""What examples of each condition mean, by plain computations on pictures whose content is known."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from kilonova.core.errors import ConfigError
from kilonova.data.pictures.dolls import DollPictures, DollSource
from kilonova.data.pictures.edges import canny_edges
from kilonova.data.pictures.examples import ConditionsSection, Example, draw_example
from kilonova.data.pictures.masks import bounding_box, frame_mask, grown, random_mask
from kilonova.data.pictures.sources import ParquetPictures, PictureSource
from kilonova.data.pictures.things import another_scene, thing_of_scene, without
from kilonova.data.pictures.variation import varied, warped
from kilonova.data.pictures.world import WorldPictures, WorldSource
from kilonova.data.world.render import render
from kilonova.data.world.sampling import SceneConfig

SIZE = (48, 32)


@pytest.fixture
def pictures(discs: Path) -> ParquetPictures:
    return ParquetPictures(PictureSource(name="discs", path=discs.name, captions=("{style} {name}",)), discs.parent)


def drawn(pictures: object, count: int, size: tuple[int, int] = SIZE, **conditions: float) -> list[Example]:
    section = ConditionsSection(**conditions)
    return [
        draw_example(pictures, index % 5, size, section, np.random.default_rng([7, index]))  # type: ignore[arg-type]
        for index in range(count)
    ]


def test_without_conditions_a_source_is_seen_as_ever(pictures: ParquetPictures) -> None:
    example = drawn(pictures, 1)[0]
    picture, caption = pictures.view(0, *SIZE, np.random.default_rng([7, 0]))
    assert np.array_equal(example.picture, picture)
    assert (example.caption, example.mask, example.control, example.references) == (caption, None, None, ())


def test_masks_are_of_every_kind_and_what_is_kept_is_opaque(pictures: ParquetPictures) -> None:
    shares = []
    for source in (pictures, WorldPictures(WorldSource(scenes=5))):
        for example in drawn(source, 40, inpainting=1.0):
            assert example.mask is not None
            assert (example.picture[..., 3] == 255).all()
            shares.append(example.mask.mean())
            # Words are left out only where something is removed, and never where they say what to put.
            assert not (example.needs_caption and example.caption == "")
    assert min(shares) < 0.2
    assert max(shares) > 0.7


def test_a_removed_thing_leaves_what_was_behind_it() -> None:
    source = WorldPictures(WorldSource(scenes=20, sampling=SceneConfig(task="two_objects")))
    for index in range(5):
        thing = thing_of_scene(source, index, 64, 64, np.random.default_rng(index))
        assert thing is not None
        scene = source.scene(index)
        alone = [render(without(scene, number), 64).image for number in (0, 1)]
        assert any(np.array_equal(thing.without, image) for image in alone)
        changed = (thing.picture != thing.without).any(-1)
        assert changed[thing.mask].mean() > 0.9
        # The rest is its shadow and its antialiased border.
        assert not (changed & ~grown(thing.mask, 0.15)).any()
        assert thing.name.split()[-1] in thing.caption


def test_controls_follow_the_picture_as_far_as_their_strength(pictures: ParquetPictures) -> None:
    found: dict[str, list[tuple[float, float]]] = {"CANNY_EDGE": [], "SEGMENTATION": []}
    for example in drawn(pictures, 60, (96, 96), control=1.0):
        assert example.control is not None
        assert example.control.shape == (96, 96, 3)
        if example.control_type == "CANNY_EDGE":
            seen = example.picture.copy()
            seen[seen[..., 3] == 0] = 255
            edges = canny_edges(seen[..., :3])[..., 0] > 0
            near = grown(edges, 0.02)
            lines = example.control[..., 0] > 0
            found["CANNY_EDGE"].append((example.control_strength, float(lines[near].sum() / max(1, lines.sum()))))
        else:
            assert len(np.unique(example.control.reshape(-1, 3), axis=0)) >= 2
            found["SEGMENTATION"].append((example.control_strength, 0.0))
    assert min(len(values) for values in found.values()) > 15
    strong, weak = (
        np.mean([hit for strength, hit in found["CANNY_EDGE"] if (strength > 0.6) is high]) for high in (True, False)
    )
    assert strong > 0.7
    assert strong > weak + 0.1


def test_references_are_like_the_picture_as_far_as_their_similarity(pictures: ParquetPictures) -> None:
    examples = drawn(pictures, 60, references=1.0)
    distances = []
    for example in examples:
        white = np.where(example.picture[..., 3:] < 128, 255, example.picture[..., :3]).astype(float)
        distances += [
            (example.similarity, np.abs(reference[..., :3] - white).mean()) for reference in example.references
        ]
    far, near = (np.mean([d for s, d in distances if (s > 0.7) is close]) for close in (False, True))
    assert near < 0.6 * far
    assert {len(example.references) for example in examples} == {1, 2, 3}
    assert min(example.similarity for example in examples) >= 0.2
    assert 0.2 < np.mean([not example.caption for example in examples]) < 0.6


def test_palettes_are_colours_of_the_picture(pictures: ParquetPictures) -> None:
    examples = drawn(pictures, 20, palette=1.0)
    for example in examples:
        assert 1 <= len(example.palette) <= 10
        visible = example.picture[example.picture[..., 3] >= 128][:, :3].astype(int)
        for colour in example.palette:
            assert (np.abs(visible - colour).max(1) < 16).mean() > 0.002


def test_a_try_on_gives_the_garment_and_hides_it_in_the_picture() -> None:
    source = DollPictures(DollSource(dolls=5))
    for index in range(5):
        found = source.try_on(index, 64, 64, np.random.default_rng(index))
        doll = source.doll(index)
        assert found.worn in doll.garments
        assert np.array_equal(found.picture, source.rendered(index, 64, 64).image)
        assert 0 < found.mask.mean() < 0.6
    examples = drawn(source, 5, try_on=1.0)
    assert all(len(e.references) == 1 and e.similarity == 1 and e.mask is not None for e in examples)


def test_shares_are_as_they_should_be(pictures: ParquetPictures) -> None:
    def kind(example: Example) -> str:
        parts = {"mask": example.mask is not None, "control": example.control is not None, "like": example.references}
        return "+".join(name for name, there in parts.items() if there)

    counts = Counter(map(kind, drawn(pictures, 300, inpainting=0.2, control=0.2, references=0.1)))
    assert counts.keys() == {"", "mask", "control", "like"}
    assert counts[""] / 300 == pytest.approx(0.5, abs=0.08)
    assert counts["like"] / 300 == pytest.approx(0.1, abs=0.05)
    with pytest.raises(ConfigError, match="more than 1"):
        ConditionsSection(inpainting=0.6, control=0.5)


def test_masks_have_their_shapes() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        assert 0.01 < random_mask(40, 24, generator).mean() < 0.95
        kept = ~frame_mask(40, 24, generator)
        assert np.array_equal(kept, bounding_box(kept))
        assert kept.any()
    dot = np.zeros((41, 41), bool)
    dot[20, 20] = True
    rows, columns = np.mgrid[:41, :41]
    assert np.array_equal(grown(dot, 0.1), np.hypot(rows - 20, columns - 20) <= 4)


def test_nothing_varies_by_no_amount() -> None:
    picture = np.random.default_rng(0).integers(256, size=(24, 32, 4), dtype=np.uint8)
    assert np.array_equal(warped(picture, 0, np.random.default_rng(0)), picture)
    assert np.array_equal(varied(picture, 0, np.random.default_rng(0)), picture)
    assert not np.array_equal(varied(picture, 0.5, np.random.default_rng(0)), picture)
    scene = WorldPictures(WorldSource(sampling=SceneConfig(task="two_objects"))).scene(0)
    assert another_scene(scene, 0, np.random.default_rng(0)) == scene
    looks = [(thing.kind, thing.colour, thing.texture) for thing in scene.objects]
    other = another_scene(scene, 1, np.random.default_rng(0))
    assert [(thing.kind, thing.colour, thing.texture) for thing in other.objects] == looks
    assert other != scene
