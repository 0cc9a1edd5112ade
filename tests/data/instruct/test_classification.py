"""Answers are exactly one of the listed labels, and the right one."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from kilonova.data.instruct import classification
from kilonova.data.instruct.records import TrainingRecords


@pytest.mark.parametrize(
    ("builder", "truth"),
    [
        (classification.sst2, {f"number {i}": ("negative", "positive")[i % 2] for i in range(40)}),
        (classification.sentence_polarity, {f"film {i} .": ("positive", "negative")[i % 2] for i in range(40)}),
        (classification.subjectivity, {f"statement {i}": ("subjective", "objective")[i % 2] for i in range(20)}),
    ],
)
def test_binary_labels_are_right_and_both_are_named(pack: Path, builder, truth: dict[str, str]) -> None:
    rows = list(builder(TrainingRecords(pack), Random(0)))
    assert len(rows) >= 20
    for row in rows:
        prompt, answer = (message["content"] for message in row["messages"])
        key = max((key for key in truth if key in prompt), key=len)
        assert answer.lower() == truth[key]
        assert all(label in prompt.lower() for label in set(truth.values()))
        assert answer in prompt


def test_intents_come_with_their_label_in_the_list(pack: Path) -> None:
    labels = {row["text"]: row["category"] for row in TrainingRecords(pack).rows("sft/banking77_train")}
    listed = 0
    for row in classification.banking77(TrainingRecords(pack), Random(0)):
        prompt, answer = (message["content"] for message in row["messages"])
        text = max((text for text in labels if text in prompt), key=len)
        assert answer in (labels[text], labels[text].replace("_", " "))
        listed += answer in prompt
    assert 60 <= listed <= 118


def test_question_types_are_the_coarse_part_of_the_label(pack: Path) -> None:
    names = {
        "NUM:dist": ("number", "distance"),
        "LOC:city": ("location", "city"),
        "HUM:ind": ("person", "individual person"),
    }
    labels = [row["label"] for row in TrainingRecords(pack).rows("sft/trec_train")]
    for row in classification.trec(TrainingRecords(pack), Random(0)):
        prompt, answer = (message["content"] for message in row["messages"])
        number = int(re.search(r"place (\d+)", prompt).group(1))
        assert answer == names[labels[number]][row["task"] == "question_type_fine"]
        assert answer in prompt


def test_label_order_varies(pack: Path) -> None:
    prompts = [row["messages"][0]["content"] for row in classification.sst2(TrainingRecords(pack), Random(0))]
    first = {prompt.lower().index("positive") < prompt.lower().index("negative") for prompt in prompts}
    assert first == {True, False}
