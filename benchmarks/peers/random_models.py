"""Models to measure: random weights in Qwen3's layout, made once, or a directory that is there."""

from __future__ import annotations

import itertools
import json
import string
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as BackendTokenizer

from kilonova.core.files import atomic_directory
from kilonova.models.checkpoint import save_decoder
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.models.registry import Registry
from kilonova.text.bpe import CONTROL_TOKENS, END_OF_TEXT, END_OF_TURN, VISIBLE_TOKENS, save_tokenizer

CONTEXT = 4096
SHAPES = {
    "0.6b": {
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "small": {
        "vocab_size": 16384,
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 64,
    },
}


def models_folder() -> Path:
    """Where models and their conversions are kept unless another folder is given."""
    return platformdirs.user_cache_path("kilonova", appauthor=False) / "benchmarks"


def find_model(name: str, folder: Path) -> Path:
    """The checkpoint directory of `small`, `0.6b`, a model that Kilonova knows, or a directory of one's own."""
    if (Path(name) / "config.json").is_file():
        return Path(name).resolve()
    if name not in SHAPES:
        return Registry().get(name).directory
    directory = folder / f"qwen3-{name}-random"
    if not (directory / "config.json").is_file():
        _make(SHAPES[name], directory)
    return directory


def vocab_size(directory: Path) -> int:
    """How many tokens the model has."""
    return json.loads((directory / "config.json").read_text(encoding="utf-8"))["vocab_size"]


def _make(shape: dict[str, int], directory: Path) -> None:
    tokenizer = _tokenizer(shape["vocab_size"])
    settings = {
        **shape,
        "model_type": "qwen3",
        "max_position_embeddings": CONTEXT,
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.token_to_id(END_OF_TURN),
        "pad_token_id": tokenizer.token_to_id(END_OF_TEXT),
    }
    decoder = Decoder(DecoderConfig.from_hf(settings))
    decoder.init_weights(torch.Generator().manual_seed(0))
    with atomic_directory(directory) as temporary:
        save_decoder(decoder.to(torch.bfloat16), temporary)
        save_tokenizer(tokenizer, temporary, CONTEXT)


def _tokenizer(size: int) -> BackendTokenizer:
    """A byte-level BPE of `size` tokens, nearly all of them whole letters.

    So every token that a random model chooses is text, and a stream shows every token as it comes.
    """
    added = (*CONTROL_TOKENS, *VISIBLE_TOKENS)
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = []
    for first, second in itertools.islice(_merges(), size - len(pieces) - len(added)):
        merges.append((first, second))
        pieces.append(first + second)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = BackendTokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in VISIBLE_TOKENS])
    return tokenizer


def _merges() -> Iterator[tuple[str, str]]:
    """Pairs of letters, then three, then four letters, each a known piece and one letter more."""
    for length in (1, 2, 3):
        for letters in itertools.product(string.ascii_lowercase, repeat=length + 1):
            yield "".join(letters[:-1]), letters[-1]
