"""Choices that people (or large models in their place) made between two answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from kilonova.core.errors import DataError
from kilonova.data.preference_pairs.pair import Pair, make_pair
from kilonova.data.sources import read_rows

TRAINING_FILES = ("lf_dpo_en_demo", "lf_dpo_zh_demo")
_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_TURN = re.compile(r"\n\n(Human|Assistant): ?")
# Ratings from 0 to 100 that are nearer than this are no preference.
_LEAST_DIFFERENCE = 5.0


def demonstration_pairs(root: Path) -> Iterator[Pair]:
    """LLaMA-Factory's demonstration sets (Apache-2.0), for training."""
    for name in TRAINING_FILES:
        for row in _rows(root, f"pref/{name}"):
            prompt = [{"role": _ROLES[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
            yield make_pair("human", name, prompt, row["chosen"]["value"], row["rejected"]["value"])


def harmlessness_pairs(root: Path) -> Iterator[Pair]:
    """The test split of HH-RLHF's harmless-base (MIT), for evaluation only."""
    for row in _rows(root, "pref/hh_rlhf_harmless_base_test"):
        chosen, rejected = (hh_messages(row[side]) for side in ("chosen", "rejected"))
        if chosen and rejected and chosen[:-1] == rejected[:-1] and len(chosen) > 1:
            texts = chosen[-1]["content"], rejected[-1]["content"]
            if all(texts):
                yield make_pair("harmlessness", "hh_rlhf_harmless_base_test", chosen[:-1], *texts)


def hh_messages(text: str) -> list[dict[str, str]]:
    """A dialogue of HH-RLHF as messages, empty if it does not end with the assistant."""
    parts = _TURN.split(text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    messages = [
        {"role": roles[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    return messages if messages and messages[-1]["role"] == "assistant" else []


def summary_pairs(root: Path) -> Iterator[Pair]:
    """SQuALITY's rated answers (CC BY 4.0) to questions about stories, by overall rating; for evaluation only.

    The stories, of several thousand words, are left out of the prompts.
    """
    questions = {
        row["metadata"]["passage_id"]: [question["question_text"] for question in row["questions"]]
        for row in _rows(root, "eval/squality_test")
    }
    for row in _rows(root, "pref/squality_human_ratings"):
        for number, systems in row["questions"].items():
            question = questions[row["passage-id"]][int(number)]
            for first, second in combinations(sorted(systems), 2):
                ratings = [systems[name]["overall"]["overall-rating"] for name in (first, second)]
                if abs(ratings[0] - ratings[1]) < _LEAST_DIFFERENCE:
                    continue
                better, worse = (first, second) if ratings[0] > ratings[1] else (second, first)
                texts = [systems[name]["response"].strip() for name in (better, worse)]
                prompt = [{"role": "user", "content": question}]
                yield make_pair("summary", "squality_human_ratings", prompt, texts[0], texts[1])


def _rows(root: Path, name: str) -> Iterator[dict[str, Any]]:
    path = root / f"{name}.jsonl.zst"
    if not path.is_file():
        raise DataError(f"{path} is missing")
    yield from read_rows(path)
