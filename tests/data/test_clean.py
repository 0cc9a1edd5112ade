"""Cleaning as a whole: what is kept, what is written, and what the report says."""

import json
from pathlib import Path

import numpy as np
import pytest
import zstandard

from kilonova.core.errors import ConfigError, DataError
from kilonova.data.clean import CleanConfig, clean
from kilonova.data.duplicates import NearDuplicateConfig
from kilonova.data.quality import QualityConfig
from kilonova.data.sources import read_rows

GERMAN = (
    "Der Hafen war noch still, als die ersten Boote mit der Flut kamen und ihre Mannschaften zu entladen begannen. "
    "Niemand hatte den Fischern gesagt, dass der Markt an diesem Tag geschlossen bleiben würde, und so warteten sie. "
)
_NOUNS = ["harbour", "boat", "morning", "tide", "market", "fisherman", "wall", "storm", "street", "church", "water"]
_LITTLE_WORDS = ["the", "of", "and", "to", "that", "have", "with", "when", "was", "there", "under", "quietly", "their"]


def story(seed: int, sentences: int = 12) -> str:
    """English of a kind, different for every seed."""
    generator = np.random.default_rng(seed)
    words = generator.choice([*_NOUNS, *_LITTLE_WORDS], (sentences, 14)).tolist()
    return "\n".join(f"The {' '.join(line)}." for line in words)


def write(path: Path, rows: list[dict]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(zstandard.compress(data) if path.suffix == ".zst" else data)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    first = [{"text": story(number), "id": number} for number in range(6)]
    first += [
        {"text": story(1).upper(), "id": 6},
        {"text": story(2, 11) + "\nAn end that is new.", "id": 7},
        {"text": "This is far too short.", "id": 8},
        {"text": GERMAN * 3, "id": 9},
        {"text": " ", "id": 10},
    ]
    second = [{"text": f"{story(20)}\n{story(99, 1)}", "é": "kept as it is"}, {"text": story(0)}]
    (tmp_path / "book.txt").write_text(story(50))
    return [write(tmp_path / "a.jsonl", first), write(tmp_path / "b.jsonl.zst", second), tmp_path / "book.txt"]


def test_each_step_drops_its_document(files: list[Path], tmp_path: Path) -> None:
    evaluation = write(
        tmp_path / "eval.jsonl", [{"q": "nothing of this is found anywhere at all"}, {"q": story(99, 1)}]
    )
    output = tmp_path / "clean"

    report = clean(files, output, CleanConfig(languages=("en",)), [evaluation])

    assert [row["id"] for row in read_rows(output / "a.jsonl")] == [0, 1, 2, 3, 4, 5]
    assert list(read_rows(output / "b.jsonl.zst")) == []
    assert (output / "book.txt").read_text() == story(50)
    found = report.to_dict()
    assert (found["documents"], found["kept"]) == (14, 7)
    reasons = {reason: [e["location"] for e in entry["examples"]] for reason, entry in found["dropped"].items()}
    assert reasons == {
        "exact duplicate": ["a.jsonl:7", "b.jsonl.zst:2"],
        "near duplicate": ["a.jsonl:8"],
        "quality: min_words": ["a.jsonl:9"],
        "language": ["a.jsonl:10"],
        "empty": ["a.jsonl:11"],
        "contamination": ["b.jsonl.zst:1"],
    }
    details = {reason: entry["examples"][-1]["detail"] for reason, entry in found["dropped"].items()}
    assert details["exact duplicate"] == "of a.jsonl:1"
    assert details["near duplicate"] == "of a.jsonl:3"
    assert details["language"] == "de"
    assert details["contamination"].endswith("words of row 1 of eval.jsonl")
    assert found["evaluation"] == {str(evaluation): {"rows": 2, "tested": 2, "touched": [1], "contaminated": [1]}}
    assert found["files"]["b.jsonl.zst"]["kept"] == {"documents": 0, "bytes": 0}
    assert found["languages"]["de"]["documents"] == 1


def test_equal_inputs_give_equal_files(files: list[Path], tmp_path: Path) -> None:
    reports = [clean(files, tmp_path / name, CleanConfig()).to_dict() for name in ("one", "two")]
    assert reports[0] == reports[1]
    for path in files:
        assert (tmp_path / "one" / path.name).read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_steps_can_be_left_out_and_rows_stay_as_they_were(files: list[Path], tmp_path: Path) -> None:
    report = clean(files, tmp_path / "clean", CleanConfig(quality=None, near_duplicates=None))
    assert set(report.dropped) == {"exact duplicate", "empty"}
    assert next(read_rows(tmp_path / "clean" / "b.jsonl.zst"))["é"] == "kept as it is"


def test_templates_and_thresholds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"title": "T", "pages": ["one", "two"]}, {"title": "T", "pages": ["three"]}])
    with pytest.raises(DataError, match=r"a\.jsonl:1: rows have no field 'text'.*--template"):
        clean([path], tmp_path / "clean", CleanConfig())
    assert not (tmp_path / "clean").exists()
    off = dict.fromkeys(name for name in QualityConfig.__dataclass_fields__ if "ngram" not in name)
    rules = QualityConfig(**(off | {"min_words": 3, "placeholder_text": False}))  # type: ignore[arg-type]
    config = CleanConfig(
        template="{title}\n{pages}", quality=rules, near_duplicates=NearDuplicateConfig(similarity=0.9)
    )
    report = clean([path], tmp_path / "clean", config)
    assert (report.kept, report.dropped["quality: min_words"].documents) == (1, 1)


def test_conversations_and_preferences(tmp_path: Path) -> None:
    chat = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": text}]} for text in "ab"]
    path = write(tmp_path / "chat.jsonl", [*chat, chat[0], {"messages": 1}])
    report = clean([path], tmp_path / "clean", CleanConfig(format="chat"))
    assert list(read_rows(tmp_path / "clean" / "chat.jsonl")) == chat
    assert {reason: count.documents for reason, count in report.dropped.items()} == {
        "row: repeats an earlier row": 1,
        "row: malformed messages": 1,
    }
    prompt, chosen, rejected = ([{"role": role, "content": role}] for role in ("user", "assistant", "assistant"))
    path = write(tmp_path / "pairs.jsonl", [{"prompt": prompt, "chosen": chosen, "rejected": rejected}])
    report = clean([path], tmp_path / "pairs", CleanConfig(format="preference"))
    assert list(report.dropped) == ["row: chosen and rejected are the same"]


def test_nothing_is_overwritten(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not an empty folder"):
        clean(files, tmp_path, CleanConfig())
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ConfigError, match=r"two inputs are called a\.jsonl"):
        clean([files[0], write(other / "a.jsonl", [])], tmp_path / "clean", CleanConfig())
    with pytest.raises(ConfigError, match="chat"):
        clean([files[2]], tmp_path / "clean", CleanConfig(format="chat"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl.zst", "book.txt", "other"]


def test_half_surrogates_are_dropped_from_texts_and_kept_in_other_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": story(0) + "\ud83d"}, {"text": story(1), "tag": "\ud83d"}])
    report = clean([path], tmp_path / "clean", CleanConfig())
    assert {reason: count.documents for reason, count in report.dropped.items()} == {"invalid Unicode": 1}
    json.dumps(report.to_dict(), ensure_ascii=False).encode()
    assert [row["tag"] for row in read_rows(tmp_path / "clean" / "a.jsonl")] == ["\ud83d"]
