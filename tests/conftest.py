"""Small things that tests share: a tokenizer and a random model in Micro's layout."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

_WORDS = """
the quick brown fox jumps over the lazy dog while seven wizards quietly vex a judge under bright northern lights
a model reads text as numbers and answers with numbers that become text again when the table is read backwards
summarise translate classify answer count sort list extract rewrite question passage label positive negative
Der schnelle braune Fuchs springt über den faulen Hund. Le renard brun saute par-dessus le chien paresseux.
El zorro marrón salta sobre el perro perezoso. Быстрая лиса прыгает через ленивую собаку. 素早い茶色の狐。
{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}} 0 1 2 3 4 5 6 7 8 9 10 100 1000
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: add --slow, as in make test ARGS=--slow"))


@pytest.fixture(autouse=True)
def package_log() -> Iterator[None]:
    """Takes back what a test sets up for the package's log, which would outlive the stream it writes to."""
    logger = logging.getLogger("kilonova")
    before = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture(scope="session")
def tiny_tokenizer_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of 512 tokens with Micro's control tokens and chat template."""
    from kilonova.text.bpe import save_tokenizer, train_tokenizer

    directory = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer([_WORDS] * 4, 512), directory, model_max_length=512)
    return directory


@pytest.fixture(scope="session")
def tiny_micro_directory(tiny_tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in Micro's layout: 2 layers, hidden size 64, 512 tokens, context 512, float32."""
    import shutil

    import torch

    from kilonova.models.checkpoint import save_decoder
    from kilonova.models.decoder.config import DecoderConfig
    from kilonova.models.decoder.model import Decoder

    directory = tmp_path_factory.mktemp("tiny-micro") / "model"
    shape = {
        "model_type": "qwen3",
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
    }
    model = Decoder(DecoderConfig.from_hf(shape))
    model.init_weights(torch.Generator().manual_seed(0))
    save_decoder(model, directory)
    for file in tiny_tokenizer_directory.iterdir():
        shutil.copyfile(file, directory / file.name)
    return directory
