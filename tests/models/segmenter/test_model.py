"""The segmenter's network: shapes, what may depend on what, and what its answers are put together to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kilonova.core.errors import ConfigError
from kilonova.models.components import load_component, save_component
from kilonova.models.segmenter.blocks import MaskedCrossAttention, sine_positions
from kilonova.models.segmenter.config import SEGMENTER_PRESETS, MixedQuerySegmenterConfig
from kilonova.models.segmenter.model import Answers, MixedQuerySegmenter
from kilonova.models.segmenter.post_process import certainty, fits, instances, semantic
from kilonova.models.segmenter.texts import encode_questions
from kilonova.models.sizing import num_parameters
from kilonova.models.text_encoder.states import TextStates

CONFIG = MixedQuerySegmenterConfig(
    block_out_channels=(8, 8, 16),
    norm_num_groups=4,
    hidden_size=32,
    num_attention_heads=2,
    num_encoder_layers=1,
    num_fusion_layers=1,
    num_decoder_layers=2,
    num_queries=6,
    text_hidden_size=12,
)


class LetterEncoder:
    """A token a letter, each a random state of its own; counts what it was asked to encode."""

    hidden_size = 12

    def __init__(self) -> None:
        self.states = torch.randn(128, 12, generator=torch.Generator().manual_seed(3))
        self.asked: list[str] = []

    def encode(self, texts: list[str]) -> TextStates:
        self.asked += texts
        width = max(map(len, texts))
        mask = torch.tensor([[place < len(text) for place in range(width)] for text in texts])
        states = torch.stack([self.states[[ord(letter) for letter in text.ljust(width)]] for text in texts])
        return TextStates(states * mask[..., None], mask, states.mean(1))


def make(config: MixedQuerySegmenterConfig = CONFIG) -> MixedQuerySegmenter:
    model = MixedQuerySegmenter(config)
    model.init_weights(torch.Generator().manual_seed(0))
    return model.eval()


def picture(count: int = 1, height: int = 48, width: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def last(model: MixedQuerySegmenter, image: torch.Tensor, texts: list[list[str]]) -> Answers:
    return model(image, encode_questions(LetterEncoder(), texts))[1][-1]


def test_presets_are_of_the_sizes_they_are_for() -> None:
    assert 3e6 < num_parameters(SEGMENTER_PRESETS["cpu"]) < 5e6
    assert 30e6 < num_parameters(SEGMENTER_PRESETS["small"]) < 45e6


def test_answers_are_of_all_queries_texts_and_pixels() -> None:
    model = make()
    features, levels = model(picture(2), encode_questions(LetterEncoder(), [["red", "a star"], ["box"]]))
    assert features.alpha_logits.shape == (2, 48, 32)
    assert [tuple(level.class_logits.shape) for level in levels] == [(2, 6, 2), (2, 6, 2), (2, 6, 2)]
    assert all(level.mask_logits.shape == (2, 6, 24, 16) for level in levels)
    found = [features.alpha_logits, *(level.class_logits for level in levels), *(level.mask_logits for level in levels)]
    torch.stack([each.square().sum() for each in found]).sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_a_picture_is_answered_alike_alone_and_beside_others_with_more_words() -> None:
    model = make()
    images = picture(2)
    together = last(model, images, [["red"], ["a long phrase of words", "box", "star"]])
    alone = last(model, images[:1], [["red"]])
    torch.testing.assert_close(together.class_logits[:1, :, :1], alone.class_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.mask_logits[:1], alone.mask_logits, atol=1e-5, rtol=1e-5)
    other = last(model, images[:1], [["blue"]])
    assert not torch.allclose(other.class_logits, alone.class_logits, atol=1e-3)


@pytest.mark.parametrize(("queries", "learnable"), [("mixed", 3), ("learnable", 6), ("conditional", 0)])
def test_queries_are_of_the_sorts_asked_for(queries: str, learnable: int) -> None:
    config = replace(CONFIG, queries=queries)
    assert (config.num_learnable_queries, config.num_conditional_queries) == (learnable, 6 - learnable)
    model = make(config)
    assert model.query_embed.shape == (learnable, 32)
    assert last(model, picture(), [["red"]]).class_logits.shape == (1, 6, 1)


def test_conditional_queries_are_the_tokens_that_fit_a_text_best() -> None:
    model = make()
    tokens = torch.arange(10.0)[None, :, None].expand(1, 10, 32)
    summary = torch.stack((torch.full((32,), 100.0), torch.full((32,), 200.0), torch.full((32,), 300.0)))[None]
    logits = torch.zeros(1, 10, 3)
    logits[0, 7, 1], logits[0, 2, 0], logits[0, 4, 0] = 3, 2, 1
    logits[0, :, 2] = 9
    model.conditional_proj = torch.nn.Identity()
    model.query_embed = torch.nn.Parameter(torch.zeros(3, 64))
    queries = model._queries(tokens, summary, logits, torch.tensor([[True, True, False]]))
    assert queries[0, 3:, 0].tolist() == [7, 2, 4]
    assert queries[0, 3:, -1].tolist() == [200, 100, 100]


def test_attention_sees_what_is_allowed_and_nothing_else() -> None:
    torch.manual_seed(0)
    layer = MaskedCrossAttention(16, 2)
    x, context = torch.randn(1, 2, 16), torch.randn(1, 5, 16)
    allowed = torch.tensor([[[True, False, True, False, False], [False, True, False, False, True]]])
    found = layer(x, context, allowed)
    for query, seen in enumerate(([0, 2], [1, 4])):
        q = layer.q_norm(layer.q_proj(x[0, query]).view(2, 8))
        k, v = layer.kv_proj(context[0, seen]).view(2, 2, 2, 8).unbind(1)
        scores = torch.einsum("hd,shd->hs", q, layer.k_norm(k)) / 8**0.5
        expected = layer.o_proj(torch.einsum("hs,shd->hd", scores.softmax(1), v).flatten())
        torch.testing.assert_close(found[0, query], expected)


def test_a_place_has_the_same_sines_at_every_size() -> None:
    small, large = sine_positions(3, 1, 16), sine_positions(9, 1, 16)
    torch.testing.assert_close(small[1], large[4])
    torch.testing.assert_close(small[0], large[1])
    assert len({tuple(row) for row in sine_positions(8, 8, 32).round(decimals=3).tolist()}) == 64


def test_texts_are_encoded_once_and_kept_apart() -> None:
    encoder = LetterEncoder()
    questions = encode_questions(encoder, [["Ab", "c."], ["ab", " abc ", "c"]])
    assert encoder.asked == ["ab", "c", "abc"]
    assert questions.states.shape == (2, 6, 12)
    assert questions.text_mask.tolist() == [[True, True, False], [True, True, True]]
    assert questions.token_mask.sum(1).tolist() == [3, 6]
    for row, number, letters in ((0, 0, "ab"), (0, 1, "c"), (1, 1, "abc"), (1, 2, "c")):
        states = questions.states[row, questions.membership[row, number]]
        assert torch.equal(states, encoder.states[[ord(letter) for letter in letters]])
    assert (questions.states[0, 3:] == 0).all()
    with pytest.raises(ConfigError, match="has no tokens"):
        encode_questions(encoder, [["ab", "."]])


def test_weights_and_config_come_back_from_a_folder(tmp_path: object) -> None:
    model = make()
    save_component(model, f"{tmp_path}/segmenter")
    again = load_component(f"{tmp_path}/segmenter")
    assert isinstance(again, MixedQuerySegmenter)
    assert again.config == model.config
    assert torch.equal(last(again, picture(), [["red"]]).mask_logits, last(model, picture(), [["red"]]).mask_logits)


@pytest.mark.parametrize("shape", [(1, 4, 32, 32), (1, 3, 32, 40)])
def test_pictures_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="image: "):
        make().encode(torch.zeros(shape))


def test_impossible_shapes_are_refused() -> None:
    for change in ({"hidden_size": 30}, {"norm_num_groups": 3}, {"sample_size": 100}, {"num_decoder_layers": 0}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            replace(CONFIG, **change)


def answers() -> Answers:
    """Two queries on the left half, one surer, and one on the lower right; three texts, the last of which fits none."""
    masks = torch.full((1, 3, 4, 4), -6.0)
    masks[0, :2, :, :2] = 6
    masks[0, 2, 2:, 2:] = 6
    scores = torch.tensor([[[0.9, 0.1, 0.05], [0.7, 0.2, 0.05], [0.1, 0.5, 0.2]]])
    return Answers(scores.logit(), masks)


def test_what_is_found_is_put_together_for_each_way_of_asking() -> None:
    np.testing.assert_allclose(fits(answers())[0, :, 0], [1, 7 / 9, 1 / 9], rtol=1e-5)
    np.testing.assert_allclose(fits(answers())[0, :, 1], [1 / 6, 1 / 3, 5 / 6], rtol=1e-5)
    sure = certainty(answers())
    assert sure.shape == (1, 3, 4, 4)
    assert (sure[0, 0] > 0.5).tolist() == [[True, True, False, False]] * 4
    assert float(sure[0, 2].max()) < 0.5
    assert semantic(sure)[0].tolist() == [[0, 0, -1, -1]] * 2 + [[0, 0, 1, 1]] * 2
    found = instances(answers(), 0)
    assert [(one.text, round(one.score, 2)) for one in found] == [(0, 0.9), (1, 0.5)]


def test_things_that_overlap_little_or_are_of_other_names_are_kept_apart() -> None:
    few = answers()
    few.mask_logits[0, 1, :, 1] = -6
    assert [one.text for one in instances(few, 0)] == [0, 0, 1]
    assert [one.text for one in instances(Answers(few.class_logits.roll(1, 2), few.mask_logits), 0)] == [1, 1, 2]
