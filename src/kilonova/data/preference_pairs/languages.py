"""Translations into the language asked for, against the untranslated sentence or another language."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from random import Random

from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.translation import LANGUAGE_NAMES, LARGE_LANGUAGES, translation
from kilonova.data.preference_pairs.pair import Pair, make_pair

_LOOKED_AT = 12


def wrong_languages(records: TrainingRecords, rng: Random) -> Iterator[Pair]:
    """Sentence pairs of the large languages, each way."""
    rows: list[tuple[str, str, str]] = []
    by_language: dict[str, list[str]] = defaultdict(list)
    by_sentence: dict[str, dict[str, str]] = defaultdict(dict)
    for row in records.rows("sft/tatoeba_pairs_train"):
        language, text, english = row["lang"], row["text"].strip(), row["english"].strip()
        if language not in LARGE_LANGUAGES or not text or not english or len(text) > 300:
            continue
        rows.append((language, text, english))
        by_language[language].append(text)
        by_sentence[english][language] = text
    rng.shuffle(rows)
    for language, text, english in rows:
        name = LANGUAGE_NAMES[language]
        if rng.random() < 0.5:
            row = translation("tatoeba", text, english, name, "English", rng)
            original, chosen = text, english
        else:
            row = translation("tatoeba", english, text, "English", name, rng)
            original, chosen = english, text
        others = [sentence for other, sentence in by_sentence[english].items() if other != language]
        draw = rng.random()
        if draw < 0.4:
            rejected = original
        elif others and draw < 0.8:
            rejected = rng.choice(others)
        else:
            elsewhere = [other for other in by_language if other != language]
            if not elsewhere:
                continue
            found = rng.choices(by_language[rng.choice(elsewhere)], k=_LOOKED_AT)
            rejected = min(found, key=lambda sentence: abs(len(sentence) - len(chosen)))
        if rejected != chosen:
            yield make_pair("wrong_language", "tatoeba", row["messages"][:-1], chosen, rejected)
