"""Tree scoring and bits per byte against one plain forward pass for everything."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kilonova.core.errors import ContextLengthExceeded
from kilonova.evals.scoring import ChoiceScorer, choice_tokens, score_texts
from kilonova.models.checkpoint import load_decoder
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.text.bpe import END_OF_TEXT
from kilonova.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model(tiny_micro_directory: Path) -> Decoder:
    return load_decoder(tiny_micro_directory)


@pytest.fixture(scope="module")
def tokenizer(tiny_micro_directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(tiny_micro_directory)


def brute_force(model: Decoder, prompt: list[int], choice: list[int]) -> float:
    with torch.no_grad():
        table = model(torch.tensor([prompt + choice])).log_softmax(-1)[0]
    return sum(float(table[len(prompt) - 1 + i, token]) for i, token in enumerate(choice))


# Shared beginnings, a choice that is the beginning of another, single tokens, a repeated choice.
CHOICES = [[5, 6, 7, 2], [5, 6, 8, 2], [5, 2], [9, 2], [2], [5, 6, 7, 2], [10, 11, 12, 13, 2]]


def test_tree_scores_equal_one_pass_per_choice(model: Decoder) -> None:
    scorer = ChoiceScorer(model, CHOICES)
    prompts = [[20, 21, 22, 23, 24], [20, 21, 22, 40], [20, 21, 22, 40], [20, 21, 22, 40, 41, 42], [99], [20]]
    for prompt in prompts:
        expected = [brute_force(model, prompt, choice) for choice in CHOICES]
        assert scorer.score(prompt) == pytest.approx(expected, abs=1e-3)


def test_tree_scores_with_sliding_windows(model: Decoder) -> None:
    config: DecoderConfig = replace(model.config, layer_windows=(3, None))
    windowed = Decoder(config).eval()
    windowed.load_state_dict(model.state_dict())
    scorer = ChoiceScorer(windowed, CHOICES)
    for prompt in ([20, 21, 22, 23, 24, 25, 26], [20, 21, 22, 23, 24, 25, 30, 31]):
        expected = [brute_force(windowed, prompt, choice) for choice in CHOICES]
        assert scorer.score(prompt) == pytest.approx(expected, abs=1e-3)


def test_probabilities_of_all_single_tokens_sum_to_one(model: Decoder) -> None:
    scorer = ChoiceScorer(model, [[token] for token in range(model.config.vocab_size)])
    assert math.fsum(map(math.exp, scorer.score([4, 5, 6]))) == pytest.approx(1.0, abs=1e-4)


def test_what_does_not_fit_is_refused(model: Decoder) -> None:
    scorer = ChoiceScorer(model, CHOICES)
    with pytest.raises(ContextLengthExceeded, match="516 tokens, the model holds 512"):
        scorer.score([1] * 511)
    with pytest.raises(ValueError, match="not empty"):
        ChoiceScorer(model, [[1], []])


def test_choices_are_the_tokens_the_chat_template_gives(tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": "Is it good?"}]
    prompt = tokenizer.encode_template_messages(messages)
    for choice, tokens in zip(
        ("positive", "not at all"), choice_tokens(tokenizer, ("positive", "not at all")), strict=True
    ):
        turn = [*messages, {"role": "assistant", "content": choice}]
        whole = tokenizer.encode_template_messages(turn, add_generation_prompt=False)
        assert whole[: len(prompt) + len(tokens)] == prompt + tokens
        assert tokens[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(tokens) == choice


def test_bits_per_byte_of_a_short_text(model: Decoder, tokenizer: Tokenizer) -> None:
    text = "the quick brown fox jumps über den Hund"
    tokens = [tokenizer.token_id(END_OF_TEXT), *tokenizer.encode(text)]
    with torch.no_grad():
        table = model(torch.tensor([tokens])).log_softmax(-1)[0]
    nats = -sum(float(table[i, token]) for i, token in enumerate(tokens[1:]))
    scored = score_texts(model, tokenizer, [text])
    assert scored.total_bytes == len(text.encode()) == len(text) + 1
    assert scored.total_tokens == len(tokens) - 1
    assert scored.bits_per_byte == pytest.approx(nats / math.log(2) / len(text.encode()), rel=1e-5)


def test_windows_score_every_token_once_with_half_a_window_of_context(model: Decoder, tokenizer: Tokenizer) -> None:
    text = "seven wizards quietly vex a judge under bright northern lights " * 6
    tokens = [tokenizer.token_id(END_OF_TEXT), *tokenizer.encode(text)]
    context = 16
    expected, scored_to, begin = 0.0, 1, 0
    while scored_to < len(tokens):
        window = tokens[begin : begin + context]
        with torch.no_grad():
            table = model(torch.tensor([window])).log_softmax(-1)[0]
        while scored_to < len(tokens) and scored_to - 1 - begin < len(window):
            expected -= float(table[scored_to - 1 - begin, tokens[scored_to]])
            scored_to += 1
        begin += context // 2
    scored = score_texts(model, tokenizer, [text], context=context)
    assert len(tokens) > 5 * context
    assert math.fsum(scored.nats) == pytest.approx(expected, rel=1e-4)
    assert sum(scored.bytes) == pytest.approx(len(text.encode()), abs=6)
