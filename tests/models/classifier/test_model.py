"""The attribute classifier: its shapes, its file, and what it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kilonova.core.errors import ConfigError
from kilonova.models.classifier.config import AttributeClassifierConfig
from kilonova.models.classifier.model import AttributeClassifier
from kilonova.models.classifier.pictures import cut_out, to_tensor
from kilonova.models.components import load_component, save_component

SHAPE = {"image_size": 16, "block_out_channels": [16, 32], "norm_num_groups": 4}
HEADS = {"style": ["flat", "round", "3D"], "group": ["food", "tools"]}


def test_a_saved_classifier_answers_the_same(tmp_path: Path) -> None:
    model = AttributeClassifier(AttributeClassifierConfig.from_dict({"heads": HEADS, **SHAPE}))
    model.init_weights(torch.Generator().manual_seed(0))
    pictures = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert all(not logits.any() for logits in model(pictures).values())
    for head in model.heads.values():
        torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(2))
    logits = model(pictures)
    assert {name: tuple(rows.shape) for name, rows in logits.items()} == {"style": (3, 3), "group": (3, 2)}
    save_component(model, tmp_path / "classifier")
    loaded = load_component(tmp_path / "classifier")
    assert isinstance(loaded, AttributeClassifier)
    assert loaded.config == model.config
    for name, rows in loaded(pictures).items():
        assert torch.equal(rows, logits[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 18}, "image_size"),
        ({"block_out_channels": [16, 30]}, "block_out_channels"),
        ({"block_out_channels": [16, 96]}, "block_out_channels"),
        ({"heads": {"style": ["flat", "flat"]}}, "heads.style"),
        ({"hidden_size": 3}, "hidden_size"),
    ],
)
def test_impossible_shapes_are_named(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AttributeClassifierConfig.from_dict({"heads": HEADS, **SHAPE, **change})


def test_pictures_are_put_whole_before_white() -> None:
    picture = np.zeros((8, 16, 4), np.uint8)
    picture[:, 8:] = (255, 0, 0, 255)
    found = to_tensor([picture], 16)
    assert found.shape == (1, 3, 16, 16)
    assert (found[0, :, :4] == 1).all()
    assert (found[0, :, 6:10, :6] == 1).all()
    assert found[0, :, 8, 12].tolist() == [1, -1, -1]


def test_a_thing_is_cut_out_square_with_its_mask_as_alpha() -> None:
    picture = np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)
    mask = np.zeros((20, 30), bool)
    mask[3:7, 10:20] = True
    mask[3, 10] = False
    found = cut_out(picture, mask)
    assert found.shape == (12, 12, 4)
    assert np.array_equal(found[4:8, 1:11, 3] == 255, mask[3:7, 10:20])
    assert np.array_equal(found[4:8, 1:11, :3], picture[3:7, 10:20])
    assert found[..., 3].sum() == 255 * mask.sum()
