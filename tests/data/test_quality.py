"""Each rule is broken by a document made for it, and kept by prose."""

import numpy as np
import pytest

from kilonova.data.ngrams import ngram_hashes, normalised_words, word_hashes
from kilonova.data.quality import QualityConfig, quality_violation

PROSE = """The harbour was quiet when the first boats came in with the morning tide and their crews began to unload.
Nobody had told the fishermen that the market would be closed, so they have waited there for an hour or more.
A boy of about ten ran along the wall to tell them what he had heard, and they thanked him with three herring.
Later in the day a storm rose out of the west; by evening every street below the church stood under water."""
FILLER = [f"{word}{number}" for number in range(20) for word in ("stone", "river", "cloud", "ember")]


def only(**rules: object) -> QualityConfig:
    """A configuration of nothing but the rules given."""
    off: dict[str, object] = dict.fromkeys(QualityConfig.__dataclass_fields__)
    off |= {"max_top_ngram": (), "max_duplicate_ngrams": (), "placeholder_text": False}
    return QualityConfig(**(off | rules))  # type: ignore[arg-type]


def test_prose_keeps_every_rule() -> None:
    assert quality_violation(PROSE, QualityConfig()) is None


BROKEN = {
    "min_words": "Far too short.",
    "max_words": PROSE,
    "min_mean_word_length": "a b c d e f g h " * 10,
    "max_mean_word_length": "incomprehensibilities " * 60,
    "max_symbols_per_word": PROSE + " #" * 12,
    "min_alphabetic_words": PROSE + " 1,024" * 40,
    "min_stop_words": " ".join(FILLER),
    "placeholder_text": PROSE + "\nLorem ipsum dolor sit amet.",
    "max_bullet_lines": "\n".join(f"- {word} lies here." for word in FILLER),
    "max_ellipsis_lines": "\n".join(f"{word} and then ..." for word in FILLER),
    "min_punctuated_lines": "\n".join(f"the {word} of a long line without an end" for word in FILLER),
    "max_short_lines": "\n".join(f"{word} is here." for word in FILLER),
    "max_duplicate_lines": "\n".join(["Home."] * 40 + [PROSE]),
    "max_duplicate_line_characters": PROSE + "\n" + PROSE.splitlines()[0],
    "max_duplicate_paragraphs": "\n\n".join(["Share.", "Share.", "Share.", PROSE]),
    "max_duplicate_paragraph_characters": f"{PROSE}\n\n{PROSE}",
    "max_top_ngram (2 words)": PROSE + " buy it" * 60,
    "max_duplicate_ngrams (5 words)": PROSE + " " + " ".join(PROSE.split()[:30]),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_is_broken_by_its_document_alone(rule: str) -> None:
    name = rule.split()[0]
    threshold = {"max_words": 50}.get(name, QualityConfig.__dataclass_fields__[name].default)
    violation = quality_violation(BROKEN[rule], only(**{name: threshold}))
    assert violation is not None
    assert violation.rule == rule
    without = QualityConfig(**{name: () if "ngram" in name else False if name == "placeholder_text" else None})
    again = quality_violation(BROKEN[rule], without)
    assert again is None or again.rule != rule


def test_values_are_those_of_plain_counting() -> None:
    text = "one two three four five six one two three four five seven"
    # The second "one two three four five" (19 letters) of all 46.
    letters = len(text.replace(" ", ""))
    violation = quality_violation(text, only(max_duplicate_ngrams=(0.0,)))
    assert violation is not None
    assert violation.value == pytest.approx(19 / letters, abs=1e-4)
    top = quality_violation("a b a b a b c", only(max_top_ngram=(0.5,)))
    assert top is not None
    assert top.value == pytest.approx(6 / 7, abs=1e-4)


def test_stop_words_are_asked_of_english_only() -> None:
    text = " ".join(FILLER)
    assert quality_violation(text, only(min_stop_words=2), language="de") is None
    assert quality_violation(text, only(min_stop_words=2), language="en") is not None


def test_words_of_scripts_without_spaces_are_characters() -> None:
    assert normalised_words("Ｆｕｌｌ width, IT'S 中文です!") == ["full", "width", "it", "s", "中", "文", "で", "す"]


def test_ngram_hashes_are_equal_exactly_for_equal_runs() -> None:
    words = np.random.default_rng(0).choice(list("abcd"), 500).tolist()
    hashes = ngram_hashes(word_hashes(words), 3)
    runs = ["".join(words[start : start + 3]) for start in range(498)]
    assert len(hashes) == 498
    assert len(set(hashes.tolist())) == len(set(runs)) == len(set(zip(runs, hashes.tolist(), strict=True)))
    assert len(ngram_hashes(word_hashes(["a"]), 3)) == 0
