"""Rewards that a program computes from the text of an answer.

A verifier is named by a mapping such as `{"name": "number", "value": 12}`: its name, and the fields of its class. It
gives 1 for an answer that is right, 0 for one that is not, and something between where it can tell how near one came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from kilonova.core.config import parse_config
from kilonova.core.errors import ConfigError, DataError, nearest

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?|[-+]?\.\d+")


class Verifier(Protocol):
    """The reward, from 0 to 1, of an answer given as text."""

    def __call__(self, text: str) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Exact:
    """The answer is `answer`, but for white space (and case with `ignore_case`).

    With `partial` an answer that is not right gives the share of `answer` that it starts with, in characters.
    """

    answer: str
    ignore_case: bool = False
    partial: bool = False

    def __call__(self, text: str) -> float:
        given, wanted = self._normalised(text), self._normalised(self.answer)
        if given == wanted:
            return 1.0
        if not self.partial:
            return 0.0
        same = next((at for at, (a, b) in enumerate(zip(given, wanted, strict=False)) if a != b), None)
        shared = min(len(given), len(wanted)) if same is None else same
        return shared / max(len(given), len(wanted))

    def _normalised(self, text: str) -> str:
        text = " ".join(text.split())
        return text.casefold() if self.ignore_case else text


@dataclass(frozen=True, kw_only=True)
class Number:
    """The last number in the answer is `value`, within `tolerance`; commas between digits are ignored."""

    value: float
    tolerance: float = 0.0

    def __call__(self, text: str) -> float:
        found = _NUMBER.findall(text)
        return float(bool(found) and abs(float(found[-1].replace(",", "")) - self.value) <= self.tolerance)


@dataclass(frozen=True, kw_only=True)
class Regex:
    """The whole answer, but for white space around it, matches the regular expression `pattern`."""

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"pattern: not a regular expression: {error}") from error

    def __call__(self, text: str) -> float:
        return float(re.fullmatch(self.pattern, text.strip(), re.DOTALL) is not None)


@dataclass(frozen=True, kw_only=True)
class JsonSchema:
    """The answer is JSON that a JSON Schema (draft 2020-12 unless it names another) accepts."""

    schema: dict[str, Any]

    def __post_init__(self) -> None:
        from jsonschema import SchemaError, validators

        try:
            validators.validator_for(self.schema).check_schema(self.schema)
        except SchemaError as error:
            raise ConfigError(f"schema: {error.message}") from error

    def __call__(self, text: str) -> float:
        from jsonschema import validators

        try:
            value = json.loads(text)
        except ValueError:
            return 0.0
        return float(validators.validator_for(self.schema)(self.schema).is_valid(value))


@dataclass(frozen=True, kw_only=True)
class WordCount:
    """The answer has from `least` to `most` words, parted by white space."""

    least: int = 1
    most: int

    def __call__(self, text: str) -> float:
        return float(self.least <= len(text.split()) <= self.most)


@dataclass(frozen=True, kw_only=True)
class SortedList:
    """The answer lists exactly `items`, parted by commas or line ends, in order.

    They are ordered as numbers where all are numbers, else as text. Half of the reward is for having the right items.
    """

    items: tuple[str, ...]
    order: Literal["ascending", "descending"] = "ascending"

    def __call__(self, text: str) -> float:
        given = [item.strip() for item in re.split(r"[,\n]", text) if item.strip()]
        if sorted(given) != sorted(self.items):
            return 0.0
        key: Callable[[str], Any] = float if all(map(_NUMBER.fullmatch, self.items)) else str
        return 1.0 if given == sorted(self.items, key=key, reverse=self.order == "descending") else 0.5


@dataclass(frozen=True, kw_only=True)
class Words:
    """The answer holds every word of `contains` and none of `excludes`, whole and in any case.

    The reward is the share of these demands that it meets.
    """

    contains: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.contains and not self.excludes:
            raise ConfigError("contains: give words in contains, excludes or both")

    def __call__(self, text: str) -> float:
        met = sum(_has_word(text, word) for word in self.contains)
        met += sum(not _has_word(text, word) for word in self.excludes)
        return met / (len(self.contains) + len(self.excludes))


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean of several verifiers, as of format and content."""

    verifiers: tuple[dict[str, Any], ...]

    def __post_init__(self) -> None:
        if not self.verifiers:
            raise ConfigError("verifiers: at least one is needed")
        for specification in self.verifiers:
            make_verifier(specification)

    def __call__(self, text: str) -> float:
        return sum(make_verifier(one)(text) for one in self.verifiers) / len(self.verifiers)


VERIFIERS: Mapping[str, type[Verifier]] = {
    "exact": Exact,
    "number": Number,
    "regex": Regex,
    "json_schema": JsonSchema,
    "word_count": WordCount,
    "sorted_list": SortedList,
    "words": Words,
    "mean": Mean,
}


def make_verifier(specification: Mapping[str, Any]) -> Verifier:
    """The verifier that `specification` names; DataError for an unknown name or field, or a value of a wrong type."""
    if not isinstance(specification, Mapping) or not isinstance(specification.get("name"), str):
        raise DataError(f"verifier: a mapping with a name is expected ({', '.join(VERIFIERS)}), not {specification!r}")
    fields = dict(specification)
    name = fields.pop("name")
    if name not in VERIFIERS:
        raise DataError(f"verifier: unknown name {name!r}: {nearest(name, VERIFIERS)}")
    try:
        return parse_config(VERIFIERS[name], fields, source="fields")
    except ConfigError as error:
        raise DataError(f"verifier {name!r}: {error}") from error


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None
