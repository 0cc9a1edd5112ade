"""Training of byte-level BPE vocabularies."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as BackendTokenizer

from kilonova.core.errors import ConfigError
from kilonova.core.files import write_atomic
from kilonova.text.chat_template import CHATML

END_OF_TEXT = "<|endoftext|>"
END_OF_TURN = "<|im_end|>"
CONTROL_TOKENS = (
    END_OF_TEXT,
    "<|im_start|>",
    END_OF_TURN,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|reserved_0|>",
    "<|reserved_1|>",
    "<|reserved_2|>",
    "<|reserved_3|>",
)
VISIBLE_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")

# Qwen2's split: contractions, words with one leading mark, single digits, punctuation runs, line ends, spaces.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> BackendTokenizer:
    """Train a byte-level BPE of exactly `vocab_size` tokens, control tokens included (they take the last ids).

    Any text can be encoded, as all 256 bytes are tokens. Raises `ConfigError` when `vocab_size` cannot hold bytes and
    control tokens, or the texts are too few to fill it.
    """
    added = len(CONTROL_TOKENS) + len(VISIBLE_TOKENS)
    if vocab_size < 256 + added:
        raise ConfigError(f"vocab_size: must be at least {256 + added} (256 bytes and {added} control tokens)")
    tokenizer = BackendTokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - added,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab_size - added:
        raise ConfigError(
            f"vocab_size: the texts yield only {tokenizer.get_vocab_size() + added} tokens; "
            "give more text or a smaller vocabulary"
        )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in VISIBLE_TOKENS])
    return tokenizer


def save_tokenizer(tokenizer: BackendTokenizer, directory: str | Path, model_max_length: int) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` as `transformers` reads them."""
    directory = Path(directory)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TURN,
        "pad_token": END_OF_TEXT,
        "model_max_length": model_max_length,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
    }
    write_atomic(directory / "tokenizer.json", tokenizer.to_str(pretty=False))
    write_atomic(directory / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
    write_atomic(directory / "chat_template.jinja", CHATML)
