"""The whole build: determinism, valid conversations, and nothing read that is reserved."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard

from kilonova.core.errors import DataError
from kilonova.data.instruct import build
from kilonova.data.instruct.conversation import CONTEXT_TOKENS, estimated_tokens
from kilonova.data.instruct.mixture import SOURCES
from kilonova.data.instruct.records import TrainingRecords


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def built(pack: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("built")
    report = build(pack, folder / "a.jsonl", 0, held_out_path=folder / "held_out.jsonl", limit=150)
    return folder, report


def test_every_source_gives_rows(built) -> None:
    _, report = built
    assert set(report.by_source) == {source.name for source in SOURCES}
    assert [name for name, entry in report.by_source.items() if not entry["rows"]] == []
    assert all(source.licence and source.origin for source in SOURCES)


def test_equal_seeds_write_equal_bytes_and_other_seeds_do_not(built, pack: Path) -> None:
    folder, _ = built
    build(pack, folder / "again.jsonl", 0, held_out_path=folder / "held_out_again.jsonl", limit=150)
    build(pack, folder / "other.jsonl", 1, limit=150)
    assert (folder / "a.jsonl").read_bytes() == (folder / "again.jsonl").read_bytes()
    assert (folder / "held_out.jsonl").read_bytes() == (folder / "held_out_again.jsonl").read_bytes()
    assert (folder / "a.jsonl").read_bytes() != (folder / "other.jsonl").read_bytes()


def test_every_row_is_a_valid_conversation_that_fits(built) -> None:
    folder, report = built
    rows = rows_of(folder / "a.jsonl")
    assert len(rows) == report.rows
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        body = roles[1:] if roles[0] == "system" else roles
        assert body[0] == "user"
        assert body[-1] == "assistant"
        for before, after in pairwise(body):
            assert after in {"user": {"assistant"}, "assistant": {"user", "tool"}, "tool": {"assistant"}}[before]
        for index, message in enumerate(row["messages"]):
            called = bool(message.get("tool_calls"))
            assert message["content"] or called
            assert (roles[index + 1 : index + 2] == ["tool"]) == called
            for call in message.get("tool_calls", ()):
                names = {tool["function"]["name"] for tool in row["tools"]}
                assert call["function"]["name"] in names
                assert isinstance(call["function"]["arguments"], dict)
        assert estimated_tokens(row) <= CONTEXT_TOKENS
        assert row["task"]
    assert len({json.dumps(row, sort_keys=True) for row in rows}) == len(rows)


def test_held_out_prompts_do_not_occur_in_the_training_part(built) -> None:
    folder, report = built

    def prompts(path: Path) -> set[str]:
        return {next(m["content"] for m in row["messages"] if m["role"] == "user") for row in rows_of(path)}

    assert report.held_out_rows > 0
    assert not prompts(folder / "a.jsonl") & prompts(folder / "held_out.jsonl")


def test_only_training_files_are_opened(built, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Counter[str] = Counter()
    original = Path.open

    def watched(self: Path, *arguments, **options):
        if self.suffix == ".zst":
            opened[self.relative_to(pack).as_posix()] += 1
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", watched)
    build(pack, tmp_path / "rows.jsonl", 0, limit=20)
    assert opened
    assert not [name for name in opened if name.startswith("eval/") or "_val" in name or "_test" in name]


@pytest.mark.parametrize(
    "name", ["eval/sst2_dev", "text/books_en_val", "sft/x_test", "pref/lf_dpo_en_demo", "sft/../eval/x"]
)
def test_reserved_files_are_refused(pack: Path, name: str) -> None:
    with pytest.raises(DataError, match="not a training file"):
        next(TrainingRecords(pack).rows(name))


def test_a_missing_file_and_an_unknown_source_are_named(tmp_path: Path, pack: Path) -> None:
    with pytest.raises(DataError, match=r"trec_train\.jsonl\.zst is missing"):
        build(tmp_path, tmp_path / "o.jsonl", only=("trec",))
    with pytest.raises(DataError, match="did you mean 'trec'"):
        build(pack, tmp_path / "o.jsonl", only=("trek",))
    assert not (tmp_path / "o.jsonl").exists()


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sft" / "trec_train.jsonl.zst"
    path.parent.mkdir()
    path.write_bytes(zstandard.compress(b'{"text": "a", "label": "NUM:count"}\n{broken\n'))
    with pytest.raises(DataError, match="line 2"):
        list(TrainingRecords(tmp_path).rows("sft/trec_train"))


def test_a_compressed_file_holds_the_same_lines(built, pack: Path) -> None:
    folder, _ = built
    build(pack, folder / "a.jsonl.zst", 0, held_out_path=folder / "h.jsonl.zst", limit=150)
    with zstandard.open(folder / "a.jsonl.zst", "rt", encoding="utf-8") as lines:
        assert lines.read() == (folder / "a.jsonl").read_text(encoding="utf-8")
