"""What an answer must match, compiled for a tokenizer: structured output and calls of tools.

Grammars are llguidance's, which bounds the time and memory that a grammar may take, when it is compiled and at every
token; what exceeds that is refused, or fails.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import Grammar, NamedTool, Tool, ToolChoice
from kilonova.text.schema import largest_repeat, patterns, prepare_schema
from kilonova.text.token_bytes import grammar_tokenizer
from kilonova.text.tokenizer import Tokenizer
from kilonova.text.tool_calls import CLOSING, OPENING, call_header

MAX_SOURCE_BYTES = 1 << 20
_MAX_CACHED = 32
# The automaton grows while it is used and is shared by the answers of a grammar: after so many it starts afresh.
_MAX_USES = 256
_MAX_LEXER_STATES = 25_000
_MAX_GRAMMAR_SIZE = 200_000
_MAX_MESSAGE = 300
# llguidance writes repetitions out, those within others multiplied, in one go that its limits do not interrupt.
_MAX_REPEAT = 50_000

_TEXT = r"/(.|\n)*/"
_TEXT_WITHOUT_CALL = rf"{_TEXT} & ~/(.|\n)*{OPENING}(.|\n)*/"


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a request asks of its answer."""

    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    grammar: Grammar | None = None

    @property
    def allows_calls(self) -> bool:
        return bool(self.tools) and self.tool_choice != "none"

    def __bool__(self) -> bool:
        return bool(self.tools) or self.grammar is not None


class CompiledGrammar:
    """A grammar ready for use; every answer gets a matcher of its own."""

    def __init__(self, source: str, matcher: LLMatcher, cache: GrammarCompiler) -> None:
        self.source = source
        self.num_uses = 0
        self._matcher = matcher
        self._cache = cache

    def matcher(self) -> LLMatcher:
        """A matcher at the start of an answer. All of them share the automaton, which grows with use."""
        self.num_uses += 1
        if self.num_uses >= _MAX_USES:
            self.discard()
        return self._matcher.deep_copy()

    def discard(self) -> None:
        """Compile the grammar anew next time: its automaton has outgrown its limit."""
        self._cache.discard(self)


class GrammarCompiler:
    """Compiles grammars for one tokenizer and keeps the latest; may be used from any thread.

    `vocab_size` is the length of the logits.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._source_tokenizer = tokenizer
        self._tokenizer: LLTokenizer | None = None
        self._limits = LLParserLimits(
            max_lexer_states=_MAX_LEXER_STATES, max_grammar_size=_MAX_GRAMMAR_SIZE, verbose_errors=False
        )
        self._compiled: OrderedDict[str, CompiledGrammar] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, constraints: Constraints) -> CompiledGrammar:
        """The grammar of an answer. Raises InvalidRequest, which names the field, for one that cannot be used."""
        source = _source(constraints)
        with self._lock:
            if source in self._compiled:
                self._compiled.move_to_end(source)
                return self._compiled[source]
        try:
            matcher = self._build(source)
        except _UnusableGrammarError as error:
            raise self._blame(constraints, error) from error
        compiled = CompiledGrammar(source, matcher, self)
        with self._lock:
            self._compiled[source] = compiled
            while len(self._compiled) > _MAX_CACHED:
                self._compiled.popitem(last=False)
        return compiled

    def discard(self, compiled: CompiledGrammar) -> None:
        """Forget a grammar."""
        with self._lock:
            if self._compiled.get(compiled.source) is compiled:
                del self._compiled[compiled.source]

    def _build(self, source: str) -> LLMatcher:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = grammar_tokenizer(self._source_tokenizer, self.vocab_size)
        matcher = LLMatcher(self._tokenizer, source, log_level=0, limits=self._limits)
        self._try(matcher.deep_copy())
        return matcher

    def _try(self, matcher: LLMatcher) -> None:
        """Raise unless an answer can begin, and guesses in it can be taken back."""
        words = (self.vocab_size + 31) // 32
        mask = np.zeros(words, dtype=np.int32)

        def fill() -> None:
            if not matcher.is_error():
                matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
            if matcher.is_error():
                raise _UnusableGrammarError(_brief(matcher.get_error()))

        fill()
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
        first = next((int(token) for token in allowed if token not in self._source_tokenizer.stop_token_ids), None)
        if first is not None:
            matcher.consume_token(first)
            fill()
            matcher.rollback(1)
            fill()

    def _blame(self, constraints: Constraints, error: _UnusableGrammarError) -> InvalidRequest:
        """The error of the one schema at fault, or of the whole."""
        parts = [(f"tools.{number}.parameters", one) for number, one in _tool_schemas(constraints)]
        if constraints.grammar is not None:
            parts.append(("grammar", _answer(constraints.grammar)))
        for field, part in parts if len(parts) > 1 else ():
            try:
                self._build(json.dumps({"grammars": [part]}))
            except _UnusableGrammarError as fault:
                return InvalidRequest(f"{field} cannot be used: {fault}", field=field)
        field = parts[0][0] if len(parts) == 1 else "tools"
        return InvalidRequest(f"{field} cannot be used: {error}", field=field)


class _UnusableGrammarError(Exception):
    """llguidance refuses the grammar."""


def _brief(message: str) -> str:
    lines = [line.strip() for line in message.replace("<non-verbose/>", "").splitlines() if line.strip()]
    text = " ".join(lines)
    if text.startswith("NoExtension"):
        text = "nothing matches it"
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "..."


def _source(constraints: Constraints) -> str:
    """The request's grammar in llguidance's JSON form; InvalidRequest for what no grammar can be written for."""
    answer = None if constraints.grammar is None else _answer(constraints.grammar)
    schemas = _tool_schemas(constraints)
    if answer is not None and not schemas:
        parts = [answer]
    else:
        parts = [{"lark_grammar": _outline(constraints)}]
        if answer is not None and constraints.tool_choice == "auto":
            parts.append({"name": "answer", **answer})
        parts += [{"name": f"arguments_{number}", **schema} for number, schema in schemas]
    source = json.dumps({"grammars": parts})
    if len(source) > MAX_SOURCE_BYTES:
        field = "tools" if constraints.grammar is None else "grammar"
        raise InvalidRequest(f"{field} must be at most {MAX_SOURCE_BYTES} bytes of JSON", field=field)
    return source


def _outline(constraints: Constraints) -> str:
    """The answer as a whole, in llguidance's dialect of Lark: text, then calls, as the choice of tools has it."""
    if not constraints.allows_calls:
        return f"start: TEXT\nTEXT: {_TEXT_WITHOUT_CALL}\n"
    choice = constraints.tool_choice
    mark = _lark_string(OPENING)
    more = ""
    if constraints.parallel_tool_calls and not isinstance(choice, NamedTool):
        more = f" ({_lark_string(chr(10) + OPENING)} call)*"
    lines = [f"calls: call{more}"]
    numbers = [number for number, _ in _callable(constraints)]
    lines.append("call: " + " | ".join(f"call_{number}" for number in numbers))
    for number in numbers:
        header = _lark_string(call_header(constraints.tools[number].name))
        lines.append(f"call_{number}: {header} @arguments_{number} {_lark_string('}' + chr(10) + CLOSING)}")
    if choice != "auto":
        lines.append(f"start: {mark} calls")
    elif constraints.grammar is not None:
        lines.append(f"start: @answer | {mark} calls")
    else:
        lines += ["start: text | mark calls", "text: TEXT", f"mark[lazy]: TEXT {mark}", f"TEXT: {_TEXT_WITHOUT_CALL}"]
    return "\n".join(lines) + "\n"


def _tool_schemas(constraints: Constraints) -> list[tuple[int, dict[str, Any]]]:
    """The grammar of the arguments of each tool that may be called, with the tool's number."""
    if not constraints.allows_calls:
        return []
    return [
        (number, {"json_schema": _arguments_schema(tool, f"tools.{number}.parameters")})
        for number, tool in _callable(constraints)
    ]


def _callable(constraints: Constraints) -> list[tuple[int, Tool]]:
    choice = constraints.tool_choice
    tools = enumerate(constraints.tools)
    return [(number, tool) for number, tool in tools if choice in ("auto", "required", NamedTool(tool.name))]


def _arguments_schema(tool: Tool, field: str) -> dict[str, Any]:
    kind = tool.parameters.get("type", "object")
    if kind != "object" and not (isinstance(kind, list | tuple) and "object" in kind):
        raise InvalidRequest(f"{field} must describe an object; its type is {kind!r}", field=field)
    return _prepared({**tool.parameters, "type": "object"}, field, strict=tool.strict)


def _answer(grammar: Grammar) -> dict[str, Any]:
    source = grammar.source
    if grammar.kind == "json_schema" and isinstance(source, Mapping):
        return {"json_schema": _prepared(source, "grammar", strict=True)}
    if grammar.kind == "json_object":
        return {"json_schema": _prepared({"type": "object"}, "grammar", strict=True)}
    if grammar.kind == "choice" and isinstance(source, Sequence) and not isinstance(source, str):
        return {"lark_grammar": "start: CHOICE\nCHOICE: " + " | ".join(map(_lark_string, source))}
    if grammar.kind == "regex" and isinstance(source, str):
        _check_pattern(source, "grammar")
        return json.loads(LLMatcher.grammar_from_regex(source))["grammars"][0]
    if grammar.kind == "lark" and isinstance(source, str):
        return {"lark_grammar": source}
    raise InvalidRequest(f"grammar has no source that fits its kind {grammar.kind!r}", field="grammar")


def _prepared(schema: Mapping[str, Any], field: str, *, strict: bool) -> dict[str, Any]:
    try:
        prepared = prepare_schema(schema, strict=strict)
        json.dumps(prepared, allow_nan=False)
        for pattern in patterns(prepared):
            _check_pattern(pattern, field)
    except RecursionError:
        raise InvalidRequest(f"{field} is nested too deeply", field=field) from None
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{field} is not a JSON schema: {error}", field=field) from error
    return prepared


def _check_pattern(pattern: str, field: str) -> None:
    if largest_repeat(pattern) > _MAX_REPEAT:
        raise InvalidRequest(
            f"{field} repeats something more than {_MAX_REPEAT} times: {pattern[:60]!r}",
            field=field,
        )


def _lark_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
