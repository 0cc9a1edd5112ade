"""A segmenter's folder behind the studio's interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kilonova.core.errors import CheckpointError, InvalidRequest
from kilonova.models.components import save_folder
from kilonova.models.segmenter.config import MixedQuerySegmenterConfig
from kilonova.models.segmenter.model import Answers, MixedQuerySegmenter
from kilonova.models.segmenter.pixels import PictureFeatures
from kilonova.models.text_encoder.config import TextTransformerConfig
from kilonova.models.text_encoder.model import TextTransformer
from kilonova.studio.mask_former import MaskFormer, native_size
from kilonova.studio.segmentation import Segmenter
from kilonova.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tiny_tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random segmenter of a few thousand weights, for pictures of about 48 x 48."""
    generator = torch.Generator().manual_seed(0)
    segmenter = MixedQuerySegmenter(
        MixedQuerySegmenterConfig(
            sample_size=48,
            block_out_channels=(8, 8, 16),
            norm_num_groups=4,
            hidden_size=32,
            num_attention_heads=2,
            num_encoder_layers=1,
            num_fusion_layers=1,
            num_decoder_layers=1,
            num_queries=6,
            text_hidden_size=16,
        )
    )
    text_encoder = TextTransformer(
        TextTransformerConfig(
            vocab_size=512, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
        )
    )
    segmenter.init_weights(generator)
    text_encoder.init_weights(generator)
    # Sure enough of itself to find something.
    with torch.no_grad():
        segmenter.logit_bias.fill_(2.0)
    directory = tmp_path_factory.mktemp("segmenter") / "model"
    tokenizer = Tokenizer.from_directory(tiny_tokenizer_directory)
    save_folder({"segmenter": segmenter, "text_encoder": text_encoder, "tokenizer": tokenizer}, directory, "X")
    return directory


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(70, 150, 3)).astype(np.uint8)


def test_answers_are_of_the_picture_s_size_and_always_the_same(folder: Path, picture: np.ndarray) -> None:
    first: Segmenter = MaskFormer.load(folder)
    again = MaskFormer.load(folder)
    # The other has seen another picture before.
    again.refer(picture[::-1].copy(), "the blue box")
    assert first.foreground(picture).shape == (70, 150)
    assert first.foreground(picture).dtype == np.float32
    for ask in (
        lambda segmenter: segmenter.foreground(picture),
        lambda segmenter: segmenter.refer(picture, "the red fox"),
        lambda segmenter: segmenter.semantic(picture, ["fox", "dog"]),
    ):
        found = ask(first)
        assert found.shape == (70, 150)
        assert np.array_equal(found, ask(again))
    assert 0 <= first.refer(picture, "the red fox").min() <= first.refer(picture, "the red fox").max() <= 1
    assert first.semantic(picture, ["fox", "dog"]).dtype == np.int64
    assert not np.array_equal(first.refer(picture, "the red fox"), first.refer(picture, "numbers"))
    assert np.array_equal(first.refer(picture, "The red fox."), first.refer(picture, "the red fox"))


def test_a_changed_picture_is_looked_at_anew(folder: Path, picture: np.ndarray) -> None:
    segmenter = MaskFormer.load(folder)
    before = segmenter.foreground(picture)
    picture[:35] = 0
    assert not np.array_equal(before, segmenter.foreground(picture))
    assert np.array_equal(segmenter.foreground(picture), MaskFormer.load(folder).foreground(picture))


def test_things_have_names_masks_and_falling_scores(folder: Path, picture: np.ndarray) -> None:
    segments = MaskFormer.load(folder).instances(picture, ["fox", "dog", "judge"])
    assert segments
    scores = [segment.score for segment in segments]
    assert scores == sorted(scores, reverse=True)
    for segment in segments:
        assert segment.name in ("fox", "dog", "judge")
        assert segment.mask.shape == (70, 150)
        assert segment.mask.dtype == bool
    assert MaskFormer.load(folder).instances(picture, []) == []
    assert (MaskFormer.load(folder).semantic(picture, []) == -1).all()


def test_masks_come_back_where_they_were_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is replaced by one that finds the lower left quarter, and the upper half beneath it."""

    def decode(features: PictureFeatures, questions: object) -> list[Answers]:
        height, width = features.pixels.shape[2:]
        masks = torch.full((1, 2, height, width), -9.0)
        masks[0, 0, height // 2 :, : width // 2] = 9
        masks[0, 1, : height // 2] = 9
        return [Answers(torch.tensor([[[4.0, -4.0], [-4.0, 4.0]]]), masks)]

    segmenter = MaskFormer.load(folder)
    monkeypatch.setattr(segmenter._model, "decode", decode)
    for shape in ((48, 48), (200, 400), (33, 20)):
        picture = np.zeros((*shape, 3), np.uint8)
        quarter, half = np.zeros(shape, bool), np.zeros(shape, bool)
        quarter[shape[0] // 2 :, : shape[1] // 2] = True
        half[: shape[0] // 2] = True
        for found, true in (
            (segmenter.semantic(picture, ["a", "b"]) == 0, quarter),
            (segmenter.semantic(picture, ["a", "b"]) == 1, half),
            (segmenter.refer(picture, "a") > 0.5, quarter),
        ):
            assert (found == true).mean() > 0.93
        names = [(segment.name, (segment.mask == mask).mean() > 0.93) for segment, mask in
                 zip(segmenter.instances(picture, ["a", "b"]), (quarter, half), strict=True)]  # fmt: skip
        assert names == [("a", True), ("b", True)]


def test_native_sizes_keep_aspect_and_area() -> None:
    assert native_size(512, 512, 128) == (128, 128)
    assert native_size(40, 40, 128) == (128, 128)
    assert native_size(1280, 720, 128) == (176, 96)
    assert native_size(16, 4096, 128) == (16, 2048)


@pytest.mark.parametrize("phrase", ["", "  ", "..."])
def test_words_are_needed(folder: Path, picture: np.ndarray, phrase: str) -> None:
    with pytest.raises(InvalidRequest, match="no words"):
        MaskFormer.load(folder).refer(picture, phrase)


def test_folders_without_a_segmenter_are_refused(folder: Path, tmp_path: Path) -> None:
    parts = {"scheduler": {"_class_name": "X"}}
    save_folder(parts, tmp_path / "other", "X")
    with pytest.raises(CheckpointError, match="no MixedQuerySegmenter"):
        MaskFormer.load(tmp_path / "other")
