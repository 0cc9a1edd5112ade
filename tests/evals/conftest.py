"""Evaluation files of a few rows in the layout of the data pack."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard


@pytest.fixture(scope="session")
def write_rows() -> Callable[[Path, str, list[dict]], None]:
    """Writes one compressed JSON lines file of a data pack."""

    def write(root: Path, name: str, rows: list[dict]) -> None:
        path = root / f"{name}.jsonl.zst"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_bytes(zstandard.compress(text.encode()))

    return write


@pytest.fixture(scope="session")
def evaluation_pack(
    write_rows: Callable[[Path, str, list[dict]], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("evaluation-pack")
    words = "the quick brown fox reads a long book about northern lights and seven quiet wizards"
    write_rows(root, "text/books_en_val", [{"title": f"b{i}", "text": f"{words} {i}. " * 40} for i in range(3)])
    write_rows(root, "text/openstax_en_val", [{"title": "o", "text": f"{words}. " * 30}])
    write_rows(root, "eval/wikitext2_test", [{"text": f"= Title {i} =\n {words} ." * 12} for i in range(3)])
    write_rows(root, "eval/sst2_dev", [{"text": f"film {i} was fine", "label": str(int(i % 3 > 0))} for i in range(12)])
    write_rows(
        root, "eval/trec_test", [{"text": f"Who is {i} ?", "label": ("HUM:ind", "NUM:date")[i % 2]} for i in range(6)]
    )
    intents = ("card_arrival", "top_up_failed", "Refund_not_showing_up", "reverted_card_payment?")
    write_rows(root, "eval/banking77_test", [{"text": f"card {i}", "category": intents[i % 4]} for i in range(8)])
    write_rows(
        root, "eval/clinc150_test", [{"text": f"do {i}", "intent": ("oos", "timer", "alarm")[i % 3]} for i in range(6)]
    )
    write_rows(
        root,
        "eval/tatoeba_pairs_eval",
        [
            {"lang": lang, "text": f"Satz {i} {lang}", "english": f"Sentence {i}"}
            for i in range(4)
            for lang in ("deu", "fra", "spa", "ita", "por", "nld", "rus", "swe", "dan", "epo",
                         "pol", "tur", "jpn", "cmn", "ara", "hin")
        ],
    )  # fmt: skip
    dialogue = "\n".join(f"#Person{1 + i % 2}#: the fox number {i} reads a book" for i in range(60))
    write_rows(
        root,
        "eval/dialogsum_test",
        [
            {"fname": str(i), "dialogue": dialogue, "summary1": "a", "summary2": "the fox reads", "summary3": "b"}
            for i in range(3)
        ],
    )
    question = {
        "question_text": "What happens?",
        "responses": [{"response_text": f"the fox reads {i}"} for i in range(4)],
    }
    write_rows(root, "eval/squality_test", [{"document": f"{words}. " * 200, "questions": [question]}])
    (root / "sft").mkdir()
    return root
