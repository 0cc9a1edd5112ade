"""Tokenizers as Hugging Face directories store them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as BackendTokenizer
from tokenizers.decoders import DecodeStream

from kilonova.core.errors import CheckpointError
from kilonova.core.types import Message, Tool
from kilonova.text.chat_template import ChatTemplate, to_template_messages, to_template_tools

# Marks, inside a conversation's own text, the middle of what would otherwise read as a control token.
_BREAK = "\ufdd0"

# A character has at most four bytes, hence four tokens; control tokens in between have no text.
_MAX_OPEN_TOKENS = 64


class Tokenizer:
    """Text to token ids and back, with the chat template of its model."""

    def __init__(
        self,
        backend: BackendTokenizer,
        chat_template: ChatTemplate | None,
        eos_token_id: int,
        stop_token_ids: frozenset[int],
    ) -> None:
        self._backend = backend
        self.chat_template = chat_template
        self.eos_token_id = eos_token_id
        self.stop_token_ids = stop_token_ids
        added = sorted((token.content for token in backend.get_added_tokens_decoder().values()), key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, added)) or r"(?!)")

    @classmethod
    def from_directory(cls, directory: str | Path) -> Tokenizer:
        """Read `tokenizer.json`, `tokenizer_config.json`, the chat template and the stop tokens of a checkpoint."""
        directory = Path(directory)
        try:
            backend = BackendTokenizer.from_file(str(directory / "tokenizer.json"))
        except Exception as error:
            raise CheckpointError(f"{directory / 'tokenizer.json'}: {error}") from error
        backend.no_padding()
        backend.no_truncation()
        settings = _read_json(directory / "tokenizer_config.json")
        stop = set(_as_list(_read_json(directory / "generation_config.json").get("eos_token_id")))
        stop.update(_as_list(_read_json(directory / "config.json").get("eos_token_id")))
        eos_token = _token_text(settings.get("eos_token"))
        eos_token_id = backend.token_to_id(eos_token) if eos_token else None
        if eos_token_id is None:
            if not stop:
                raise CheckpointError(f"{directory}: no eos_token in tokenizer_config.json or generation_config.json")
            eos_token_id = min(stop)
        stop.add(eos_token_id)
        source = settings.get("chat_template")
        if (directory / "chat_template.jinja").exists():
            source = (directory / "chat_template.jinja").read_text(encoding="utf-8")
        variables = {
            name: text for name in ("bos_token", "eos_token") if (text := _token_text(settings.get(name))) is not None
        }
        template = ChatTemplate(source, variables) if isinstance(source, str) else None
        return cls(backend, template, eos_token_id, frozenset(stop))

    @property
    def backend(self) -> BackendTokenizer:
        """The Hugging Face tokenizer underneath."""
        return self._backend

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    def vocabulary(self) -> dict[str, int]:
        """Every token as the vocabulary spells it, with its id."""
        return self._backend.get_vocab(with_added_tokens=True)

    def token_id(self, token: str) -> int | None:
        """The id of a token given as the vocabulary spells it, or None."""
        return self._backend.token_to_id(token)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Token ids of `text`. What looks like a control token stays plain text unless `allow_special` is set."""
        if allow_special or not self._added.search(text):
            # Unlike `encode`, the batch call lets other threads run meanwhile, and it skips offsets.
            return self._backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return [token for piece in self._break_control_tokens(text).split(_BREAK) for token in self.encode(piece)]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `token_ids`; bytes that form no character become U+FFFD."""
        return self._backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def token_text(self, token_id: int) -> str:
        """The text of one token on its own, control tokens spelled out."""
        return self._backend.decode([token_id], skip_special_tokens=False)

    def render_chat(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the chat template spells it; see `ChatTemplate.render`."""
        return self._template().render(to_template_messages(messages), to_template_tools(tools), add_generation_prompt)

    def encode_chat(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Token ids of the rendered conversation; control tokens are only those of the template itself."""
        return self.encode_template_messages(
            to_template_messages(messages), to_template_tools(tools), add_generation_prompt=add_generation_prompt
        )

    def encode_template_messages(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        *,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """As `encode_chat`, for messages and tools given as Hugging Face dictionaries."""
        text = self._template().render(self._break_within(messages), self._break_within(tools), add_generation_prompt)
        if _BREAK not in text:
            return self.encode(text, allow_special=True)
        return [token for piece in text.split(_BREAK) for token in self.encode(piece, allow_special=True)]

    def _template(self) -> ChatTemplate:
        if self.chat_template is None:
            raise CheckpointError("the checkpoint has no chat template: use a raw prompt, or add chat_template.jinja")
        return self.chat_template

    def _break_control_tokens(self, text: str) -> str:
        return self._added.sub(lambda match: f"{match[0][:1]}{_BREAK}{match[0][1:]}", text.replace(_BREAK, ""))

    def _break_within(self, tree: Any) -> Any:
        """The same tree with every string in it protected by `_break_control_tokens`."""
        if isinstance(tree, str):
            return self._break_control_tokens(tree)
        if isinstance(tree, dict):
            return {self._break_within(key): self._break_within(value) for key, value in tree.items()}
        if isinstance(tree, (list, tuple)):
            return [self._break_within(value) for value in tree]
        return tree


class IncrementalDetokenizer:
    """Turns a stream of token ids into a stream of whole characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        """The text that became complete with this token; empty while a character is still open."""
        text = self._stream.step(self._tokenizer._backend, token_id)
        if text is None:
            self._pending.append(token_id)
            if len(self._pending) < _MAX_OPEN_TOKENS:
                return ""
            # Bytes that never become a character; the stream decodes all of them again at every step.
            text = self.flush()
            self._stream = DecodeStream(skip_special_tokens=True)
        self._pending.clear()
        return text

    def flush(self) -> str:
        """What an unfinished character leaves at the end, as U+FFFD."""
        pending, self._pending = self._pending, []
        return self._tokenizer.decode(pending)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error


def _as_list(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _token_text(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value
