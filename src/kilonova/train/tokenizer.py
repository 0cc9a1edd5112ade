"""Training of a vocabulary from a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kilonova.core.config import load_config
from kilonova.core.errors import ConfigError
from kilonova.core.progress import ProgressReporter
from kilonova.data.sources import Source, read_documents
from kilonova.recipes import find_recipe
from kilonova.text.bpe import save_tokenizer, train_tokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe:
    """What to train a vocabulary on.

    A source's weight below 1 takes that part from the start of each of its documents, above 1 repeats it.
    """

    output: str
    vocab_size: int
    model_max_length: int
    data_root: str = "."
    sources: tuple[Source, ...]


def train_from_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train the vocabulary a recipe describes and return the directory it was written to."""
    recipe = load_config(TokenizerRecipe, find_recipe(name), overrides)
    if not recipe.sources:
        raise ConfigError("sources: at least one is needed")
    save_tokenizer(train_tokenizer(_texts(recipe), recipe.vocab_size), recipe.output, recipe.model_max_length)
    return Path(recipe.output)


def _texts(recipe: TokenizerRecipe) -> Iterator[str]:
    with ProgressReporter("read", total=len(recipe.sources)) as progress:
        for number, source in enumerate(recipe.sources):
            progress.update(number, source.name)
            whole, part = divmod(source.weight, 1)
            for text in read_documents(source, recipe.data_root):
                for _ in range(int(whole)):
                    yield text
                if part:
                    yield text[: int(len(text) * part)]
        progress.update(len(recipe.sources), "counting pairs")
