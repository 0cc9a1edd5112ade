"""What the tasks read and ask."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from kilonova.data.instruct import classification, dialogues, translation
from kilonova.evals.tasks import (
    TASKS,
    ChoiceTask,
    GenerationTask,
    TextTask,
    choose_tasks,
    lead_sentences,
    tool_call_text,
)


def test_choice_tasks_list_their_labels_and_hold_the_answer(evaluation_pack: Path) -> None:
    for task in TASKS:
        if not isinstance(task, ChoiceTask):
            continue
        labels, examples = task.load(evaluation_pack, 5, 0)
        assert examples
        for example in examples:
            assert example.answer in labels
            if task.name in ("trec", "banking77", "clinc150"):
                assert all(label in example.prompt for label in labels)


def test_labels_are_read_as_words(evaluation_pack: Path) -> None:
    (bank,) = choose_tasks(["banking77"])
    assert isinstance(bank, ChoiceTask)
    labels, _ = bank.load(evaluation_pack, 5, 0)
    assert labels == ("card arrival", "refund not showing up", "reverted card payment", "top up failed")
    (assistant,) = choose_tasks(["clinc150"])
    assert isinstance(assistant, ChoiceTask)
    assert "out of scope" in assistant.load(evaluation_pack, 5, 0)[0]


def test_translation_goes_the_way_its_name_says(evaluation_pack: Path) -> None:
    into_english, from_english = choose_tasks(["translation-deu-eng", "translation-eng-deu"])
    assert isinstance(into_english, GenerationTask)
    assert isinstance(from_english, GenerationTask)
    for example in into_english.load(evaluation_pack, 10, 0):
        assert example.references[0].startswith("Sentence")
        assert "English" in example.messages("")[0]["content"]
        assert example.baseline in example.messages("")[0]["content"]
    for example in from_english.load(evaluation_pack, 10, 0):
        assert example.references[0].endswith("deu")
        assert "into German" in example.messages("")[0]["content"]


def test_program_examples_end_with_a_user_turn(evaluation_pack: Path) -> None:
    for task in choose_tasks(["instructions"]):
        assert isinstance(task, GenerationTask)
        for example in task.load(evaluation_pack, 60, 0):
            assert example.messages("")[-1]["role"] == "user"
            assert not any("tool_calls" in message for message in example.messages(""))
            assert example.references[0]


def test_text_tasks_choose_their_language(evaluation_pack: Path) -> None:
    (task,) = choose_tasks(["sentences-fra"])
    assert isinstance(task, TextTask)
    texts = [text for row in task.rows(evaluation_pack) if (text := task.text(row))]
    assert texts
    assert all(text.endswith("fra") for text in texts)


def test_wordings_do_not_occur_in_the_instruction_data() -> None:
    known = " ".join(
        (
            *classification.SENTIMENT_INSTRUCTIONS, *classification.QUESTION_TYPE_INSTRUCTIONS,
            *classification.INTENT_INSTRUCTIONS, *classification.BANK_OPEN_INSTRUCTIONS,
            *classification.ASSISTANT_OPEN_INSTRUCTIONS, *translation.TRANSLATION_TEMPLATES,
            *dialogues.SUMMARY_INSTRUCTIONS,
        )
    ).lower()  # fmt: skip
    wordings = [
        piece.strip(" .:\n").lower()
        for task in TASKS
        if isinstance(task, ChoiceTask)
        for piece in task.template.replace("{labels}", "{text}").split("{text}")
    ]
    wordings += ["translate the sentence into", "write a one-sentence summary of the following dialogue"]
    for wording in wordings:
        assert len(wording) < 12 or wording not in known


def test_lead_sentences() -> None:
    assert lead_sentences("One is here. Two came. Three left. Four.") == "One is here. Two came. Three left."
    assert (
        lead_sentences("#Person1#: a\n#Person2#: b\n#Person1#: c\n#Person2#: d")
        == "#Person1#: a #Person2#: b #Person1#: c"
    )


def test_tool_calls_compare_whatever_the_order_of_arguments() -> None:
    assert tool_call_text({"name": "f", "arguments": {"b": 1, "a": 2}}) == tool_call_text(
        {"name": "f", "arguments": {"a": 2, "b": 1}}
    )


def test_the_sentiment_of_the_file_is_read_right(evaluation_pack: Path) -> None:
    (task,) = choose_tasks(["sst2"])
    assert isinstance(task, ChoiceTask)
    _, examples = task.load(evaluation_pack, 100, 0)
    for example in islice(examples, 12):
        number = int(example.prompt.split("film ")[-1].split()[0])
        assert example.answer == ("positive" if number % 3 else "negative")
    assert len(examples) == 12


def test_rows_that_occur_in_training_are_left_out(write_rows, tmp_path: Path) -> None:
    write_rows(tmp_path, "eval/sst2_dev", [{"text": text, "label": "1"} for text in ("A fine film .", "new", "other")])
    write_rows(tmp_path, "sft/sst2_train", [{"text": "a fine film", "label": "0"}])
    write_rows(tmp_path, "sft/subjectivity_train", [{"text": "Other!", "label": "subjective"}])
    (task,) = choose_tasks(["sst2"])
    assert isinstance(task, ChoiceTask)
    assert [row["text"] for row in task.unseen_rows(tmp_path)] == ["new"]
    assert len(task.load(tmp_path, 10, 0)[1]) == 1


def test_pairs_with_a_side_seen_in_training_are_left_out(write_rows, tmp_path: Path) -> None:
    pairs = [("Guten Tag", "Good day"), ("Danke", "Thanks"), ("Bitte", "Please")]
    write_rows(tmp_path, "eval/tatoeba_pairs_eval", [{"lang": "deu", "text": a, "english": b} for a, b in pairs])
    write_rows(tmp_path, "sft/tatoeba_pairs_train", [{"lang": "fra", "text": "Merci", "english": "thanks!"}])
    (task,) = choose_tasks(["translation-deu-eng"])
    assert isinstance(task, GenerationTask)
    assert {example.references[0] for example in task.load(tmp_path, 10, 0)} == {"Good day", "Please"}
