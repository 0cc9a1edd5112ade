"""Statistics of small sources, against counting by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from kilonova.core.errors import DataError
from kilonova.data.mixture import build_rows
from kilonova.data.sources import Source
from kilonova.data.statistics import DataStatistics, measure
from kilonova.data.tokens import tokenize_source
from kilonova.text.tokenizer import Tokenizer

ENGLISH = "The harbour was quiet when the first boats came in with the morning tide and their crews began to unload."
GERMAN = "Der Hafen war noch still, als die ersten Boote mit der Flut kamen und die Mannschaften entladen wollten."


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    rows = [{"text": ENGLISH}, {"text": ENGLISH.upper()}, {"text": GERMAN}, {"text": f"{ENGLISH} Indeed."}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chat = {
        "messages": [{"role": "user", "content": "Wie geht es dir heute?"}, {"role": "assistant", "content": "Gut!"}]
    }
    (tmp_path / "b.jsonl").write_text(json.dumps(chat) + "\n")
    return [Source("a", "a.jsonl", weight=2.0), Source("b", "b.jsonl", format="chat")]


def test_sizes_languages_and_duplicates(sources: list[Source], tmp_path: Path) -> None:
    first, second = measure(sources, tmp_path).sources
    sizes = [len(text.encode()) for text in (ENGLISH, ENGLISH, GERMAN, f"{ENGLISH} Indeed.")]
    assert (first.documents, first.bytes, first.lengths.tolist()) == (4, sum(sizes), sizes)
    assert (first.exact_duplicates, first.near_duplicates) == (1, 1)
    assert first.languages == {"en": sum(sizes) - sizes[2], "de": sizes[2]}
    assert (second.documents, second.tokens, dict(second.languages)) == (1, None, {"de": second.bytes})
    assert first.share == pytest.approx(2 * first.bytes / (2 * first.bytes + second.bytes))


def test_tokens_packing_and_temperature(sources: list[Source], tmp_path: Path, tiny_tokenizer_directory: Path) -> None:
    tokenizer = Tokenizer.from_directory(tiny_tokenizer_directory)
    tokenized = [tokenize_source(source, tmp_path, tokenizer, "", tmp_path / "cache") for source in sources]
    statistics = measure(sources, tmp_path, tokenized, temperature=2.0)
    first, second = statistics.sources
    assert first.tokens == len(tokenized[0].tokens) == first.lengths.sum()
    assert first.bytes_per_token == first.bytes / len(tokenized[0].tokens)
    sizes = np.sqrt([2 * len(tokenized[0].tokens), len(tokenized[1].tokens)])
    assert [first.share, second.share] == pytest.approx((sizes / sizes.sum()).tolist())
    waste = build_rows(tokenized, [2.0, 1.0], 200, 0, whole_documents=True).waste
    packed = DataStatistics(statistics.sources, "tokens", 200, waste).to_dict()
    assert packed["packing"]["empty_share"] == waste.empty_share
    assert packed["sources"][0]["length_quantiles"]["1.0"] == first.lengths.max()
    json.dumps(packed)

    longest = int(np.sort(first.lengths)[1])
    fit = 2 * first.lengths[first.lengths <= longest].sum()
    shares = [source.share for source in measure(sources, tmp_path, tokenized, longest=longest).sources]
    assert shares[0] == pytest.approx(fit / (fit + second.lengths[second.lengths <= longest].sum()))


def test_an_empty_source_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(DataError, match="'a' holds no documents"):
        measure([Source("a", "a.jsonl")], tmp_path)
