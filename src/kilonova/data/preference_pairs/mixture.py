"""The mixture of kinds, balanced so that length gives nothing away, and the build of the files."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from rich.table import Table

from kilonova.core.errors import DataError, nearest
from kilonova.core.files import write_atomic
from kilonova.core.progress import ProgressReporter
from kilonova.data.instruct.conversation import Row
from kilonova.data.instruct.mixture import interleaved
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.preference_pairs.corruptions import off_topic, repeated, shuffled_words, wrong_length, wrong_style
from kilonova.data.preference_pairs.formats import wrong_formats
from kilonova.data.preference_pairs.human import demonstration_pairs, harmlessness_pairs, summary_pairs
from kilonova.data.preference_pairs.languages import wrong_languages
from kilonova.data.preference_pairs.pair import AnswerPool, Pair, answer_of, is_held_out, lengths, make_pair
from kilonova.data.preference_pairs.wrong_answers import is_verifiable, wrong_answer

Answerer = Callable[[list[list[dict[str, Any]]]], list[str | None]]
"""Gives a model's answer to each of several conversations, None where one does not fit."""

SHARES = {
    "wrong_answer": 0.28,
    "off_topic": 0.14,
    "shuffled_words": 0.08,
    "repeated": 0.08,
    "wrong_length": 0.12,
    "wrong_style": 0.08,
    "wrong_format": 0.12,
    "wrong_language": 0.10,
}
KINDS = (*SHARES, "model_answer", "human")
_SPOILT: dict[str, Callable[[Row, AnswerPool, Random], str | None]] = {
    "wrong_answer": wrong_answer,
    "off_topic": off_topic,
    "shuffled_words": shuffled_words,
    "repeated": repeated,
    "wrong_length": wrong_length,
}
# A kind that has run out of rows of the scarcer length ends rather than look through the rest of the data.
_MOST_ROWS_A_PAIR = 40
_ANSWERED_AT_ONCE = 64


@dataclass
class PairReport:
    """What a build wrote: for each kind the pairs, and how often the longer answer is the chosen one (ties half)."""

    path: str
    seed: int
    pairs: int = 0
    held_out_pairs: int = 0
    by_kind: dict[str, dict[str, float]] = field(default_factory=dict)

    def table(self) -> Table:
        """The report for the terminal."""
        table = Table(title=f"{self.pairs:,} pairs, {self.held_out_pairs:,} held out")
        for column in ("kind", "pairs", "longer is better", "characters chosen", "characters rejected"):
            table.add_column(column, justify="left" if column == "kind" else "right")
        for kind, entry in self.by_kind.items():
            numbers = (f"{entry['longer_is_better']:.1%}", f"{entry['chosen']:.0f}", f"{entry['rejected']:.0f}")
            table.add_row(kind, f"{entry['pairs']:,}", *numbers)
        return table

    def to_dict(self) -> dict[str, object]:
        """The report as plain JSON values."""
        return asdict(self)


class LengthBalance:
    """Lets pairs through so that as many have the longer answer chosen as rejected, but for at most one."""

    def __init__(self) -> None:
        self._lead = 0

    def admits(self, pair: Pair) -> bool:
        """Whether the pair may be kept; it then counts."""
        chosen, rejected = lengths(pair)
        side = (chosen > rejected) - (chosen < rejected)
        if abs(self._lead + side) > 1:
            return False
        self._lead += side
        return True


def programmatic(records: TrainingRecords, count: int, seed: int, kinds: Iterable[str]) -> Iterator[Pair]:
    """About `count` pairs of `kinds` from one pass over the prompts of `kilonova data instruct`, each prompt used once.

    Every kind is balanced by length; one for which the data does not suffice gives fewer.
    """
    wanted = [kind for kind in SHARES if kind in set(kinds)]
    total = sum(SHARES[kind] for kind in wanted)
    left = {kind: round(count * SHARES[kind] / total) for kind in wanted}
    balances = {kind: LengthBalance() for kind in wanted}
    streams: dict[str, Iterator[Pair]] = {
        "wrong_format": wrong_formats(Random(f"{seed}:wrong_format")),
        "wrong_language": wrong_languages(records, Random(f"{seed}:wrong_language")),
    }
    for kind in [kind for kind in wanted if kind in streams]:
        tried = islice(streams[kind], _MOST_ROWS_A_PAIR * left[kind])
        yield from islice((pair for pair in tried if balances[kind].admits(pair)), left.pop(kind))
    rng = Random(f"{seed}:spoil")
    pool = AnswerPool()
    rows = islice(interleaved(records, seed, None), _MOST_ROWS_A_PAIR * sum(left.values())) if left else iter(())
    for row in rows:
        if not any(left.values()):
            return
        for kind in rng.sample(sorted(left), len(left)):
            pair = _spoilt(kind, row, pool, rng) if left[kind] else None
            if pair is not None and balances[kind].admits(pair):
                left[kind] -= 1
                yield pair
                break
        pool.add(row)


def _spoilt(kind: str, row: Row, pool: AnswerPool, rng: Random) -> Pair | None:
    if kind == "wrong_style":
        return wrong_style(row, rng)
    answer, rejected = answer_of(row), _SPOILT[kind](row, pool, rng)
    if answer is None or rejected is None or rejected.strip() in ("", answer.strip()):
        return None
    return make_pair(kind, row["source"], row["messages"][:-1], answer, rejected)


def model_mistakes(records: TrainingRecords, count: int, seed: int, answer: Answerer) -> Iterator[Pair]:
    """Right answers against wrong ones that a model gives, for prompts with one right answer, balanced by length."""
    balance = LengthBalance()
    rows = (row for row in interleaved(records, seed + 1, None) if is_verifiable(row))
    found = 0
    for _ in range(_MOST_ROWS_A_PAIR * count // _ANSWERED_AT_ONCE + 1):
        group = list(islice(rows, _ANSWERED_AT_ONCE))
        if not group:
            return
        given = answer([row["messages"][:-1] for row in group])
        for row, text in zip(group, given, strict=True):
            right = answer_of(row) or ""
            if not text or not text.strip() or text.strip().casefold() == right.strip().casefold():
                continue
            pair = make_pair("model_answer", row["source"], row["messages"][:-1], right, text.strip())
            if balance.admits(pair):
                yield pair
                found += 1
                if found == count:
                    return


def build(
    data_root: str | Path,
    output: str | Path,
    seed: int = 0,
    *,
    held_out_path: str | Path | None = None,
    human_path: str | Path | None = None,
    count: int = 20_000,
    answer: Answerer | None = None,
    only: tuple[str, ...] = (),
) -> PairReport:
    """Write about `count` pairs made by programs, and those of people, to `output` as JSON lines, whole or not at all.

    Pairs of about 5 % of the prompts go to `held_out_path` if given, else nowhere. `human_path` gets the human sets
    that are for evaluation only. With `answer`, a tenth more pairs set a model's own mistakes against right answers.
    `only` names the kinds to make. Equal inputs write equal bytes. Raises DataError for a missing file or an unknown
    kind.
    """
    for kind in only:
        if kind not in KINDS:
            raise DataError(f"unknown kind {kind!r}; {nearest(kind, KINDS)}")
    if "model_answer" in only and answer is None:
        raise DataError("kind model_answer needs a model")
    kinds = only or KINDS
    root = Path(data_root)
    records = TrainingRecords(root)
    streams: list[Iterator[Pair]] = [programmatic(records, count, seed, kinds)]
    if answer is not None and "model_answer" in kinds:
        streams.append(model_mistakes(records, count // 10, seed, answer))
    if "human" in kinds:
        streams.append(demonstration_pairs(root))
    report = PairReport(str(output), seed)
    kept: list[Pair] = []
    held_out: list[Pair] = []
    seen: set[str] = set()
    with ProgressReporter("pairs", count) as progress:
        for pair in (pair for stream in streams for pair in stream):
            key = json.dumps([pair["prompt"], pair["chosen"], pair["rejected"]], sort_keys=True)
            if key in seen:
                continue
            seen.add(key)
            (held_out if is_held_out(pair) else kept).append(pair)
            progress.update(len(seen))
    Random(f"{seed}:order").shuffle(kept)
    _write(output, kept)
    if held_out_path is not None:
        _write(held_out_path, held_out)
    if human_path is not None:
        _write(human_path, [*harmlessness_pairs(root), *summary_pairs(root)])
    report.pairs, report.held_out_pairs = len(kept), len(held_out)
    report.by_kind = length_table(kept)
    return report


def length_table(pairs: Iterable[Pair]) -> dict[str, dict[str, float]]:
    """For each kind and for all: pairs, the share whose longer answer is chosen, and both mean lengths (characters)."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in pairs:
        chosen, rejected = lengths(pair)
        for kind in (pair["kind"], "all"):
            sums[kind] += Counter(
                pairs=2, longer=2 * (chosen > rejected) + (chosen == rejected), chosen=2 * chosen, rejected=2 * rejected
            )
    return {
        kind: {
            "pairs": total["pairs"] // 2,
            "longer_is_better": total["longer"] / total["pairs"],
            "chosen": total["chosen"] / total["pairs"],
            "rejected": total["rejected"] / total["pairs"],
        }
        for kind, total in sorted(sums.items(), key=lambda item: (item[0] == "all", item[0]))
    }


def _write(path: str | Path, pairs: Iterable[Pair]) -> None:
    write_atomic(path, "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))
