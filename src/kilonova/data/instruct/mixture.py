"""The mixture: which sources, under which licence, with how many rows each; and the build of the file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import IO

import zstandard
from rich.table import Table

from kilonova.core.errors import DataError, nearest
from kilonova.data.instruct import (
    classification,
    dialogues,
    knowledge,
    list_programs,
    memory,
    passages,
    rewriting,
    smalltalk,
    system_prompts,
    text_programs,
    tool_programs,
    translation,
)  # fmt: skip
from kilonova.data.instruct.conversation import Row, estimated_tokens, fits
from kilonova.data.instruct.records import TrainingRecords

Builder = Callable[[TrainingRecords, Random], Iterator[Row]]
PROGRAM = ("this package", "Apache-2.0")
JOINED_SHARE = 0.06
RESTYLED_SHARE = 0.05
HELD_OUT_PERCENT = 1


@dataclass(frozen=True)
class Source:
    """One part of the mixture: `origin` is repository@commit, `rows` the most conversations it may give."""

    name: str
    origin: str
    licence: str
    rows: int
    builder: Builder


SOURCES = (
    Source("sst2", "forest-snow/alps@3c7ef2c98249", "MIT (copy); SST itself not stated", 12_000, classification.sst2),
    Source("sentence_polarity", "nltk/nltk_data@5db857e6f7df", "CC BY 4.0", 9_000, classification.sentence_polarity),
    Source("movie_reviews", "nltk/nltk_data@5db857e6f7df", "CC BY 4.0", 1_600, classification.movie_reviews),
    Source("subjectivity", "nltk/nltk_data@5db857e6f7df", "CC BY 4.0", 4_000, classification.subjectivity),
    Source("trec", "nltk/nltk_data@5db857e6f7df", "not stated", 14_000, classification.trec),
    Source("banking77", "PolyAI-LDN/task-specific-datasets@57ec275d8078", "CC BY 4.0", 20_000,
    classification.banking77),
    Source("clinc150", "clinc/oos-eval@828f8093932c", "CC BY 3.0", 18_200, classification.clinc150),
    Source("tatoeba", "facebookresearch/LASER@74bc6ae7ffb7", "CC BY 2.0 FR (Tatoeba); LASER repository BSD", 50_000,
    translation.tatoeba),
    Source("children_stories_parallel", "global-asp/asp-source@99e022369a98", "CC BY (per story)", 4_000,
    translation.parallel_stories),
    Source("wikisplit", "google-research-datasets/wiki-split@80f5bddf42d1", "CC BY-SA 4.0", 5_000, rewriting.wikisplit),
    Source("onestopenglish", "nishkalavallabhi/OneStopEnglishCorpus@37f8db3945cd", "CC BY-SA 4.0", 2_000,
    rewriting.onestopenglish),
    Source("instruction_induction", "orhonovich/instruction-induction@f7304ae0a352", "Apache-2.0", 14_000,
    rewriting.instruction_induction),
    Source("world_factbook", "factbook/factbook.json@8662a8b17a78", "CC0 1.0", 14_000, knowledge.countries),
    Source("gsm8k", "openai/grade-school-math@3101c7d50724", "MIT", 2_500, knowledge.gsm8k),
    Source("commonsenseqa", "kojima-takeshi188/zero_shot_cot@5ef330fcdeec", "MIT upstream; not stated in this copy",
    6_000, knowledge.commonsenseqa),
    Source("tldr_pages", "tldr-pages/tldr@08e345f42639", "CC BY 4.0", 3_000, knowledge.command_lines),
    Source("openstax", "openstax/osbooks-* (commit in each row of the text file)", "CC BY 4.0 at the pinned commits",
    11_000, passages.openstax),
    Source("classic_books", "mlschmitt/classic-books-markdown@944882722e9a", "public domain", 5_000, passages.books),
    Source("children_stories", "global-asp/asp-source@99e022369a98, global-asp/pb-source@9ea530dfb001",
    "CC BY (per story)", 4_500, passages.stories),
    Source("sgd", "google-research-datasets/dstc8-schema-guided-dialogue@e852981ae349", "CC BY-SA 4.0", 9_000,
    dialogues.sgd),
    Source("glaive", "hiyouga/LLaMA-Factory@ff6d4d12eeb0", "Apache-2.0", 300, dialogues.glaive),
    Source("lf_identity", "hiyouga/LLaMA-Factory@ff6d4d12eeb0", "Apache-2.0", 91, smalltalk.demonstration_identity),
    Source("chatterbot", "gunthercox/chatterbot-corpus@a01efece2666", "BSD-3-Clause", 3_000, smalltalk.chatterbot),
    Source("self_instruct_seed", "yizhongw/self-instruct@0b26ccaa4159", "Apache-2.0", 700, smalltalk.seed_tasks),
    Source("identity", *PROGRAM, 4_000, smalltalk.identity),
    Source("courtesies", *PROGRAM, 3_000, smalltalk.courtesies),
    Source("limits", *PROGRAM, 2_000, smalltalk.limits),
    Source("text_programs", *PROGRAM, 26_000, text_programs.text_programs),
    Source("list_programs", *PROGRAM, 24_000, list_programs.list_programs),
    Source("system_prompts", *PROGRAM, 12_000, system_prompts.system_prompts),
    Source("memory", *PROGRAM, 12_000, memory.memory),
    Source("tool_programs", *PROGRAM, 5_000, tool_programs.tool_programs),
)  # fmt: skip


@dataclass
class BuildReport:
    """What a build wrote: per source and task the conversations, and per source the estimated tokens."""

    path: str
    seed: int
    rows: int = 0
    held_out_rows: int = 0
    estimated_tokens: int = 0
    skipped: int = 0
    by_source: dict[str, dict[str, object]] = field(default_factory=dict)
    by_task: dict[str, int] = field(default_factory=dict)

    def table(self) -> Table:
        """Rows, estimated tokens, origin and licence of every source, for the terminal."""
        tokens = f"about {self.estimated_tokens / 1e6:.1f} M tokens"
        table = Table(title=f"{self.rows:,} conversations, {tokens}, {self.held_out_rows:,} held out")
        table.add_column("source")
        table.add_column("conversations", justify="right")
        table.add_column("tokens (estimate)", justify="right")
        table.add_column("origin")
        table.add_column("licence")
        for name, entry in self.by_source.items():
            rows, estimate = f"{entry['rows']:,}", f"{entry['estimated_tokens']:,}"
            table.add_row(name, rows, estimate, str(entry["origin"]), str(entry["licence"]))
        return table

    def to_dict(self) -> dict[str, object]:
        """The report as plain JSON values."""
        return asdict(self)


def interleaved(
    records: TrainingRecords, seed: int, limit: int | None, sources: tuple[Source, ...] = SOURCES
) -> Iterator[Row]:
    """Rows of all sources, drawn in proportion to what each has left, so that any prefix is a fair sample.

    Now and then a row gets a style to answer in, and two consecutive rows without system prompt or tools become one
    conversation of several tasks.
    """
    rng = Random(f"{seed}:mixture")
    left = [min(source.rows, limit) if limit is not None else source.rows for source in sources]
    streams = [
        islice(source.builder(records, Random(f"{seed}:{source.name}")), count)
        for source, count in zip(sources, left, strict=True)
    ]
    waiting: Row | None = None
    while total := sum(left):
        mark = rng.randrange(total)
        index = 0
        while mark >= left[index]:
            mark -= left[index]
            index += 1
        row = next(streams[index], None)
        if row is None:
            left[index] = 0
            continue
        left[index] -= 1
        if rng.random() < RESTYLED_SHARE:
            row = system_prompts.restyled(row, rng) or row
        if waiting is not None:
            joined = join(waiting, row)
            if joined is not None:
                waiting = None
                yield joined
                continue
            yield waiting
            waiting = None
        if rng.random() < JOINED_SHARE:
            waiting = row
        else:
            yield row
    if waiting is not None:
        yield waiting


def join(first: Row, second: Row) -> Row | None:
    """Both rows as one conversation, or None where either has a system prompt or tools or they would be long."""
    if any("tools" in row or row["messages"][0]["role"] == "system" for row in (first, second)):
        return None
    if (
        "recall" in first["task"]
        or "recall" in second["task"]
        or second["task"] in {"identity", "not_told", "courtesy"}
    ):
        return None
    row: Row = {
        "messages": first["messages"] + second["messages"],
        "source": f"{first['source']}+{second['source']}",
        "task": f"{first['task']}+{second['task']}",
    }
    return row if estimated_tokens(row) <= 600 else None


def held_out(row: Row) -> bool:
    """Whether a row belongs to the held-out part: decided by its first user turn, so equal prompts stay together."""
    prompt = next(message["content"] for message in row["messages"] if message["role"] == "user")
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big") % 100 < HELD_OUT_PERCENT


@contextmanager
def _atomic_lines(path: Path) -> Iterator[IO[str]]:
    """A text file, compressed if named `.zst`, that replaces `path` when the block ends and vanishes if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            compressor = zstandard.ZstdCompressor(level=12)
            stream = compressor.stream_writer(file, closefd=False) if path.suffix == ".zst" else file
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="\n", write_through=True)
            yield text
            text.flush()
            text.detach()
            if stream is not file:
                stream.close()
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def build(
    data_root: str | Path,
    out: str | Path,
    seed: int = 0,
    *,
    held_out_path: str | Path | None = None,
    limit: int | None = None,
    only: tuple[str, ...] = (),
) -> BuildReport:
    """Writes the conversations to `out` as JSON lines, whole or not at all, and about 1 % to `held_out_path` if given.

    A name that ends in `.zst` writes a compressed file.
    `limit` caps the rows of every source, `only` names the sources to use. Equal inputs write equal bytes. Raises
    DataError for a missing training file or an unknown source.
    """
    known = {source.name: source for source in SOURCES}
    for name in only:
        if name not in known:
            raise DataError(f"unknown source {name!r}; {nearest(name, known)}")
    sources = tuple(source for source in SOURCES if not only or source.name in only)
    report = BuildReport(path=str(out), seed=seed)
    tasks: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    seen: set[bytes] = set()
    with ExitStack() as stack:
        file = stack.enter_context(_atomic_lines(Path(out)))
        other = stack.enter_context(_atomic_lines(Path(held_out_path))) if held_out_path else None
        for row in interleaved(TrainingRecords(data_root), seed, limit, sources):
            line = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            digest = hashlib.blake2b(line.encode(), digest_size=8).digest()
            if digest in seen or not fits(row):
                report.skipped += 1
                continue
            seen.add(digest)
            if other is not None and held_out(row):
                report.held_out_rows += 1
                other.write(line + "\n")
                continue
            file.write(line + "\n")
            size = estimated_tokens(row)
            report.rows += 1
            report.estimated_tokens += size
            for source_name, task in zip(row["source"].split("+"), row["task"].split("+"), strict=True):
                counts[source_name] += 1
                tokens[source_name] += size // (1 + row["source"].count("+"))
                tasks[f"{source_name}/{task}"] += 1
    for source in sources:
        report.by_source[source.name] = {
            "rows": counts[source.name], "estimated_tokens": tokens[source.name], "origin": source.origin,
            "licence": source.licence,
        }  # fmt: skip
    report.by_task = dict(sorted(tasks.items()))
    return report
