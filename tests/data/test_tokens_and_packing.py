import json
from pathlib import Path

import numpy as np
import pytest
import zstandard

from kilonova.core.errors import ConfigError, DataError
from kilonova.core.types import IGNORE_INDEX
from kilonova.data.packing import ConcatenatedRows, EpochSampler, PackedRows, make_batch
from kilonova.data.sources import Source, read_documents, read_rows
from kilonova.data.tokens import TokenizedSource, encode_conversation, tokenize_source
from kilonova.text.tokenizer import Tokenizer


def write_rows(path: Path, rows: list[dict]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(zstandard.ZstdCompressor().compress(data) if path.suffix == ".zst" else data)
    return path


def tokenized(*documents: list[int], trained: list[list[bool]] | None = None) -> TokenizedSource:
    flat = [token for document in documents for token in document]
    mask = [True] * len(flat) if trained is None else [t for document in trained for t in document]
    offsets = np.cumsum([0, *map(len, documents)])
    return TokenizedSource(np.asarray(flat, np.uint16), np.asarray(mask), offsets, num_bytes=0)


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(tiny_tokenizer_directory)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.zst"])
def test_documents_from_templates(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / name, [{"title": "T", "pages": ["a", "b"]}, {"title": "", "pages": []}])
    source = Source("s", name, template="{title}\n{pages}")
    assert list(read_documents(source, tmp_path)) == ["T\na\nb"]


def test_source_errors_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*data\.root.*example"):
        list(read_documents(Source("s", "none.jsonl", origin="example"), tmp_path))
    write_rows(tmp_path / "rows.jsonl", [{"body": "x"}])
    with pytest.raises(DataError, match=r"no field 'text' \(they have body\)"):
        list(read_documents(Source("s", "rows.jsonl"), tmp_path))
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2"):
        list(read_rows(tmp_path / "bad.jsonl"))
    (tmp_path / "bad.jsonl.zst").write_bytes(b"not zstd")
    with pytest.raises(DataError, match="zstd"):
        list(read_rows(tmp_path / "bad.jsonl.zst"))
    with pytest.raises(DataError, match="file type"):
        list(read_rows(write_rows(tmp_path / "rows.csv", [{}])))
    with pytest.raises(ConfigError, match="weight"):
        Source("s", "x.jsonl", weight=0)


def test_conversations_train_on_assistant_turns_only(tokenizer: Tokenizer) -> None:
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello <|im_end|> there"},
        {"role": "user", "content": "bye"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
    ]
    tokens, trained = encode_conversation(tokenizer, messages)
    kept = tokenizer.decode([t for t, m in zip(tokens, trained, strict=True) if m], skip_special_tokens=False)
    call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    assert kept == f"hello <|im_end|> there<|im_end|>{call}<|im_end|>"
    assert tokens == tokenizer.encode_template_messages(messages, add_generation_prompt=False)


def test_token_cache_is_reused_and_follows_the_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    write_rows(tmp_path / "rows.jsonl", [{"text": "the quick fox"}, {"text": "größe"}])
    source = Source("s", "rows.jsonl")
    first = tokenize_source(source, tmp_path, tokenizer, "f", cache)
    end = tokenizer.token_id("<|endoftext|>")
    assert first.tokens.tolist() == [*tokenizer.encode("the quick fox"), end, *tokenizer.encode("größe"), end]
    assert first.num_bytes == len("the quick foxgröße".encode())
    assert tokenize_source(source, tmp_path, tokenizer, "f", cache).tokens.tolist() == first.tokens.tolist()
    assert len(list(cache.iterdir())) == 1
    write_rows(tmp_path / "rows.jsonl", [{"text": "another"}])
    assert len(tokenize_source(source, tmp_path, tokenizer, "f", cache).offsets) == 2
    assert len(list(cache.iterdir())) == 2


def test_long_documents_encode_as_a_whole(tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = "\n".join(f"line {number} of a long text" for number in range(20_000))
    (tmp_path / "long.txt").write_text(text)
    found = tokenize_source(Source("s", "long.txt"), tmp_path, tokenizer, "f", tmp_path / "cache")
    assert tokenizer.decode(found.tokens.tolist()[:-1]) == text


def test_concatenated_rows_cover_every_window_once() -> None:
    source = tokenized(list(range(1, 8)), list(range(8, 21)))
    rows = ConcatenatedRows([source], [1.0], sequence_length=4, seed=0)
    starts = sorted(int(rows.row(index)[0][0]) for index in range(len(rows)))
    assert starts == [1, 5, 9, 13]
    tokens, _, documents = next(row for row in map(rows.row, range(len(rows))) if row[0][0] == 5)
    assert tokens.tolist() == [5, 6, 7, 8, 9]
    assert len(set(documents[:3].tolist())) == 1
    assert documents[2] != documents[3]


@pytest.mark.parametrize(("weight", "count"), [(0.5, 2), (1.0, 4), (2.5, 10)])
def test_weights_are_passes_over_a_source(weight: float, count: int) -> None:
    assert len(ConcatenatedRows([tokenized(list(range(17)))], [weight], 4, seed=0)) == count


def test_labels_stay_within_documents_and_targets() -> None:
    source = tokenized([1, 2, 3], [4, 5], trained=[[True, False, True], [True, True]])
    batch = make_batch(PackedRows([source], [1.0], sequence_length=6, seed=0), [0])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 0]]
    x = IGNORE_INDEX
    assert batch.labels.tolist() == [[x, 3, x, 5, x, x]]
    assert batch.document_ids.tolist() == [[0, 0, 0, 1, 1, -1]]


def test_best_fit_wastes_little_and_loses_nothing() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 60, size=500)
    source = tokenized(*[[number + 1] * length for number, length in enumerate(lengths)])
    rows = PackedRows([source], [1.0], sequence_length=63, seed=0)
    seen = np.concatenate([rows.row(index)[0] for index in range(len(rows))])
    assert np.bincount(seen, minlength=501)[1:].tolist() == lengths.tolist()
    assert lengths.sum() / (len(rows) * 64) > 0.93
    assert rows.num_too_long == 0


def test_documents_too_long_for_a_row_are_counted() -> None:
    rows = PackedRows([tokenized([1] * 9, [2, 3])], [1.0], sequence_length=4, seed=0)
    assert (len(rows), rows.num_too_long) == (1, 1)
    with pytest.raises(DataError, match="no document fits"):
        PackedRows([tokenized([1] * 9)], [1.0], sequence_length=4, seed=0)


def test_sampler_visits_every_row_once_an_epoch_and_needs_no_history() -> None:
    sampler = EpochSampler(num_rows=10, batch_size=4, seed=3)
    indices = [index for step in range(5) for index in sampler.indices(step)]
    assert sorted(indices[:10]) == list(range(10))
    assert sorted(indices[10:]) == list(range(10))
    assert indices[:10] != indices[10:]
    assert EpochSampler(10, 4, 3).indices(3) == indices[12:16]
    assert EpochSampler(10, 4, 4).indices(0) != indices[:4]
