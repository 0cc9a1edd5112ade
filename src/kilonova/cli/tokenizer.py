"""`kilonova tokenizer`: make tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kilonova.core.errors import ConfigError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def tokenizer() -> None:
    """Train a tokenizer.

    Example: kilonova tokenizer train notes.txt --vocab-size 8192 --output out/
    """


@app.command(no_args_is_help=True)
def train(
    corpus: Annotated[
        list[str] | None,
        typer.Argument(
            help="Text to learn from: .txt, .jsonl or .jsonl.zst files. With --recipe: KEY=VALUE overrides.",
        ),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(min=1, help="Tokens in the vocabulary, control tokens included.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Directory to write the tokenizer's files to.")] = None,
    template: Annotated[
        str, typer.Option(help="The text of a JSON row, its fields in braces, as in '{title} {text}'.")
    ] = "{text}",
    context_length: Annotated[
        int, typer.Option(min=1, help="Longest input, in tokens, that the model beside the tokenizer will take.")
    ] = 4096,
    recipe: Annotated[
        str | None,
        typer.Option(help="Take everything from a YAML file, or a shipped recipe such as micro/tokenizer."),
    ] = None,
) -> None:
    """Train a byte-level BPE vocabulary and write it, with the chat template, as transformers reads it.

    Example: kilonova tokenizer train notes.txt --vocab-size 8192 --output out/
    """
    if recipe is not None:
        from kilonova.train.tokenizer import train_from_recipe

        print(train_from_recipe(recipe, corpus or []))
        return
    if not corpus or vocab_size is None or output is None:
        raise ConfigError("text files, --vocab-size and --output are needed (or --recipe)")
    for path in corpus:
        if not Path(path).is_file():
            raise ConfigError(f"{path}: no such file")

    from kilonova.data.sources import Source, read_documents
    from kilonova.text.bpe import save_tokenizer, train_tokenizer

    sources = [Source(name=Path(path).name, path=path, template=template) for path in corpus]
    texts = (text for source in sources for text in read_documents(source, Path()))
    save_tokenizer(train_tokenizer(texts, vocab_size), output, context_length)
    print(output)
