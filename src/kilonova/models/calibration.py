"""Text to learn from what goes on inside a model, without training it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from kilonova.core.device import has_fast_bfloat16
from kilonova.core.errors import DataError
from kilonova.data.sources import read_rows
from kilonova.data.standard_library import documentation
from kilonova.models.decoder.model import Decoder, DecoderLayer
from kilonova.nn.attention import PackedCausalAttention
from kilonova.text.bpe import END_OF_TEXT
from kilonova.text.tokenizer import Tokenizer

SEQUENCES = 128
SEQUENCE_LENGTH = 512
_SEQUENCES_AT_ONCE = 8


def calibration_tokens(
    tokenizer: Tokenizer,
    file: Path | None = None,
    sequences: int = SEQUENCES,
    length: int = SEQUENCE_LENGTH,
) -> Tensor:
    """Token ids int64 `[N, length]`: at most `sequences` pieces, evenly spread over the text.

    `file` is text (`.txt`) or rows (`.jsonl`, `.jsonl.zst`) with `text` or `messages`; None means documentation from
    Python's standard library. Documents follow each other with an end token between them. `DataError` for a file
    without as much as one piece.
    """
    end = tokenizer.token_id(END_OF_TEXT)
    end = tokenizer.eos_token_id if end is None else end
    found: list[int] = []
    for document in _documents(tokenizer, file):
        found += [*document, end]
    if len(found) < length:
        raise DataError(f"{file or 'the calibration text'}: {len(found)} tokens make no sequence of {length}")
    pieces = torch.tensor(found[: len(found) // length * length]).view(-1, length)
    count = min(sequences, len(pieces))
    return pieces[torch.arange(count) * len(pieces) // count]


def text_documents(file: Path) -> Iterator[str]:
    """The documents of a `.txt`, `.jsonl` or `.jsonl.zst` file, the last two with a field `text`."""
    if file.suffix not in (".jsonl", ".zst"):
        yield _read_text(file)
        return
    for row in read_rows(file):
        if not isinstance(row.get("text"), str):
            raise DataError(f"{file}: rows have no field text (they have {', '.join(row)})")
        yield row["text"]


class LayerInputs:
    """What each layer of a decoder receives for some token ids, one layer after the other.

    `batches` holds the hidden states `[B, T, hidden]` that enter the layer at hand, in the model's dtype, or in float32
    where the device has no fast products in it.
    """

    @torch.no_grad()
    def __init__(self, decoder: Decoder, tokens: Tensor) -> None:
        stack = decoder.model
        device, dtype = stack.embed_tokens.weight.device, stack.embed_tokens.weight.dtype
        if dtype == torch.bfloat16 and not has_fast_bfloat16(device):
            dtype = torch.float32
        self._dtype = dtype
        self._attend = PackedCausalAttention()
        self.batches = [stack.embed_tokens(part.to(device)).to(dtype) for part in tokens.split(_SEQUENCES_AT_ONCE)]
        cos, sin = stack.rotary(torch.arange(tokens.shape[1], device=device), dtype)
        self._rotary = (cos.unsqueeze(-3), sin.unsqueeze(-3))

    @contextmanager
    def computing(self, layer: DecoderLayer) -> Iterator[None]:
        """`layer` in the dtype of `batches` for a while."""
        dtype = layer.input_layernorm.weight.dtype
        layer.to(self._dtype)
        try:
            yield
        finally:
            layer.to(dtype)

    @torch.no_grad()
    def outputs(self, layer: DecoderLayer) -> Iterator[Tensor]:
        """What `layer` makes of each batch."""
        for batch in self.batches:
            yield layer(batch, self._rotary, self._attend)

    @torch.no_grad()
    def observe(self, layer: DecoderLayer, name: str, show: Callable[[Tensor], None]) -> None:
        """Show the inputs `[B, T, in]` of the module `name` of `layer`, batch by batch; what follows it is not run."""

        def stop(_: nn.Module, inputs: tuple[Tensor]) -> None:
            show(inputs[0])
            raise _Seen

        handle = layer.get_submodule(name).register_forward_pre_hook(stop)
        try:
            for batch in self.batches:
                with suppress(_Seen):
                    layer(batch, self._rotary, self._attend)
        finally:
            handle.remove()

    def advance(self, layer: DecoderLayer) -> None:
        """Go on to the next layer, which receives what `layer` makes of the inputs."""
        for number, output in enumerate(self.outputs(layer)):
            self.batches[number] = output


class _Seen(Exception):
    """Ends a forward pass that has shown what it was run for."""


def _documents(tokenizer: Tokenizer, file: Path | None) -> Iterator[list[int]]:
    if file is None:
        yield from (tokenizer.encode(text) for text in documentation("calibration"))
    elif file.suffix not in (".jsonl", ".zst"):
        yield tokenizer.encode(_read_text(file))
    else:
        for row in read_rows(file):
            if isinstance(row.get("messages"), list):
                tools = row.get("tools") or ()
                yield tokenizer.encode_template_messages(row["messages"], tools, add_generation_prompt=False)
            elif isinstance(row.get("text"), str):
                yield tokenizer.encode(row["text"])
            else:
                raise DataError(f"{file}: rows have neither text nor messages (they have {', '.join(row)})")


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not readable as UTF-8 text: {error}") from error
