"""The vocabulary as llguidance reads it: the bytes that each token stands for."""

from __future__ import annotations

import json
from functools import lru_cache

from llguidance import LLTokenizer
from tokenizers import Tokenizer as BackendTokenizer

from kilonova.text.tokenizer import Tokenizer

_MAX_CACHED = 4096


def grammar_tokenizer(tokenizer: Tokenizer, vocab_size: int) -> LLTokenizer:
    """The tokenizer for grammars over logits of `vocab_size`; it ends answers with any of the stop tokens."""
    backend = tokenizer.backend
    stops = sorted(token for token in tokenizer.stop_token_ids if token < vocab_size)
    if _has_byte_level(json.loads(backend.to_str())["decoder"]):
        return LLTokenizer(_ByteLevelVocabulary(tokenizer, vocab_size), eos_token=stops)  # type: ignore[arg-type]
    return LLTokenizer(backend.to_str(), n_vocab=vocab_size, eos_token=stops)


class _ByteLevelVocabulary:
    """A byte-level vocabulary, in the form of `llguidance.TokenizerWrapper`.

    llguidance's own reading of `tokenizer.json` takes every added token in angle brackets for a control token. Here
    those that are not special, such as the marks of tool calls, stand for their text, however it is spelled in tokens.
    """

    is_tokenizer_wrapper = True
    bos_token_id: int | None = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        backend = tokenizer.backend
        added = backend.get_added_tokens_decoder()
        self.eos_token_id = tokenizer.eos_token_id
        self.special_token_ids = [token for token, content in added.items() if content.special]
        self._special = frozenset(self.special_token_ids)
        characters = _characters_of_bytes()
        self.tokens = [
            added[token].content.encode() if token in added else _token_bytes(backend, token, characters)
            for token in range(vocab_size)
        ]
        self._by_byte = {
            byte: token
            for character, byte in characters.items()
            if (token := backend.token_to_id(character)) is not None
        }
        # What a grammar forces is asked for again after each of its tokens, in every answer.
        self._spell = lru_cache(_MAX_CACHED)(self._tokens_of)

    def __call__(self, text: str | bytes) -> list[int]:
        """Tokens that spell exactly `text`, preferably those that the model knows it by; none of them special."""
        return self._spell(text.encode() if isinstance(text, str) else text)

    def _tokens_of(self, data: bytes) -> list[int]:
        text = data.decode("utf-8", errors="replace")
        for allow_special in (True, False):
            token_ids = self._tokenizer.encode(text, allow_special=allow_special)
            if self._special.isdisjoint(token_ids) and b"".join(self.tokens[token] for token in token_ids) == data:
                return token_ids
        return [self._by_byte[byte] for byte in data]


def _has_byte_level(decoder: dict[str, object] | None) -> bool:
    return '"ByteLevel"' in json.dumps(decoder)


def _token_bytes(backend: BackendTokenizer, token: int, characters: dict[str, int]) -> bytes:
    """The bytes of an ordinary token; none for an id without one, which no text then contains."""
    spelled = backend.id_to_token(token) or ""
    return bytes(characters[one] for one in spelled) if all(one in characters for one in spelled) else b""


def _characters_of_bytes() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (GPT-2's `bytes_to_unicode`, inverted)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(0x100) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(0x100 + rank): byte for rank, byte in enumerate(others)}
