"""Answers of program tasks, solved again from the prompt alone."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from kilonova.data.instruct import list_programs, memory, system_prompts, text_programs, tool_programs
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.words import CATEGORIES

RUNS = 150


def examples(task) -> list[tuple[str, str, str]]:
    return [task(Random(seed)) for seed in range(RUNS)]


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def sentence_in(prompt: str) -> str:
    """The capitalised sentence with a full stop among the lines and quotes of a prompt."""
    pieces = [piece for line in prompt.split("\n") for piece in re.split(r'"|(?:Text|Input): |: ', line)]
    return next(piece.strip() for piece in pieces if re.fullmatch(r"[A-Z].* .*\.", piece.strip())
                and not re.match(r"(?i)(please|kindly|write|convert|make|put|rewrite|change|count|give|i need)",
                piece.strip()))  # fmt: skip


def test_case_and_counts() -> None:
    for _, prompt, answer in examples(text_programs.uppercase):
        assert re.search(re.escape(answer), prompt, re.IGNORECASE)
        assert not re.search("[a-z]", answer)
    for _, prompt, answer in examples(text_programs.lowercase):
        assert re.search(re.escape(answer), prompt, re.IGNORECASE)
        assert not re.search("[A-Z]", answer)
    for _, prompt, answer in examples(text_programs.count_words):
        assert int(answer) == 1 + sentence_in(prompt).count(" ")


def test_letters() -> None:
    words = (
        {word for members in CATEGORIES.values() for word in members}
        | set(text_programs.NOUNS)
        | set(text_programs.ADJECTIVES)
        | set(text_programs.OBJECTS)
    )
    for _, prompt, answer in examples(text_programs.reverse_letters):
        assert "".join(reversed(answer)) in prompt
    for _, prompt, answer in examples(text_programs.word_length):
        assert any(len(token) == int(answer) for token in re.findall(r"[a-z]+", prompt) if token in words)
    for _, prompt, answer in examples(text_programs.count_letter):
        letter = re.search(r'letter (\w)\b|"(\w)" in|many (\w)s', prompt)
        assert letter
        found = next(group for group in letter.groups() if group)
        counts = [
            sum(character == found for character in token)
            for token in re.findall(r"[a-z]{2,}", prompt)
            if token in words
        ]
        assert int(answer) in counts


def test_extraction_copies_from_the_text() -> None:
    patterns = {"email address": r"[\w.]+@[\w.]+\w", "phone number": r"\d{3}-\d{3}-\d{4}", "price": r"\$\d+"}
    for _, prompt, answer in examples(text_programs.extract_one):
        kind = next((kind for kind in patterns if kind in prompt.replace("The price is", "")), None)
        if kind is not None:
            found = re.search(patterns[kind], prompt)
            assert answer == (found.group() if found else "none")
        else:
            assert answer in prompt or answer == "none"
    for _, prompt, answer in examples(text_programs.extract_numbers):
        assert numbers(prompt) == numbers(answer)


def test_yes_and_no() -> None:
    for _, prompt, answer in examples(text_programs.starts_with):
        word, verb, letter = re.search(r'"?(\w+)"? (starts?|ends?) with (?:the letter )?"?(\w)\b', prompt).groups()
        assert answer == ("yes" if (word.startswith(letter) if verb[0] == "s" else word.endswith(letter)) else "no")
    for _, prompt, answer in examples(list_programs.compare_numbers):
        found = numbers(prompt)
        truth = (
            found[0] > found[1] if "greater" in prompt else found[0] < found[1] if "less" in prompt
            else found[0] % 2 == 0 if "even" in prompt else found[0] % 2 == 1
        )  # fmt: skip
        assert answer == str(truth).lower()


def test_sorting_and_arithmetic() -> None:
    for _, prompt, answer in examples(list_programs.sort_numbers):
        down = "largest to smallest" in prompt or "descending" in prompt
        assert numbers(answer) == sorted(numbers(prompt), reverse=down)
    for _, prompt, answer in examples(list_programs.sort_words):
        words = re.split(r", |\n", answer)
        assert words == sorted(words)
        assert all(word in prompt for word in words)
    signs = {"plus": "+", "minus": "-", "times": "*", "divided by": "//", "x": "*", "×": "*", "÷": "//", "/": "//"}
    for _, prompt, answer in examples(list_programs.arithmetic):
        x, sign, y = re.search(r"(\d+) (plus|minus|times|divided by|[-+*x×/÷]) (\d+)", prompt).groups()
        assert int(answer) == eval(f"{x} {signs.get(sign, sign)} {y}")
    for _, prompt, answer in examples(list_programs.extreme_number):
        assert int(answer) == (max if re.search("largest|biggest|highest", prompt) else min)(numbers(prompt))


def test_lists_and_formats() -> None:
    for _, prompt, answer in examples(list_programs.person_json):
        for key, value in json.loads(answer).items():
            assert key in prompt
            assert str(value) in prompt
    for _, prompt, answer in examples(list_programs.json_lookup):
        facts = json.loads(re.search(r"\{.*\}", prompt).group())
        key = re.search(
            r"(?:the|of|return|Which|Key:) (name|age|city|colour|hobby|pet)\b", prompt.replace(json.dumps(facts), "")
        ).group(1)
        assert answer == str(facts[key])
    for _, prompt, answer in examples(list_programs.odd_one_out):
        assert answer in prompt
    for _, prompt, answer in examples(list_programs.name_category):
        assert any(re.search(rf"\b{member}\b", prompt) for member in CATEGORIES[answer])
    for _, prompt, answer in examples(list_programs.next_in_sequence):
        if found := numbers(prompt):
            assert int(answer) - found[-1] == found[1] - found[0]


@pytest.mark.parametrize("task", text_programs.TASKS + list_programs.TASKS, ids=lambda task: task.__name__)
def test_every_task_has_at_least_six_wordings(task) -> None:
    assert len({prompt for _, prompt, _ in examples(task)}) > 20
    assert all(answer and prompt.strip() == prompt for _, prompt, answer in examples(task))


def test_system_prompts_are_obeyed(pack: Path) -> None:
    for row in islice(system_prompts.system_prompts(TrainingRecords(pack), Random(1)), 600):
        system = row["messages"][0]["content"]
        answers = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
        for answer in answers:
            if row["task"] == "upper_case":
                assert answer == answer.upper()
            elif row["task"] == "lower_case":
                assert answer == answer.lower()
            elif row["task"] == "json_reply":
                assert next(iter(json.loads(answer))) in system
            elif row["task"] == "one_word":
                assert len(answer.split()) == 1
            elif row["task"] == "yes_no":
                assert answer in ("yes", "no")
            elif row["task"] == "ending":
                assert any(answer.endswith(phrase) and phrase in system for phrase in system_prompts.ENDINGS)
            elif row["task"] == "opening":
                assert any(answer.startswith(phrase) and phrase in system for phrase in system_prompts.OPENINGS)
        if row["task"] == "persona":
            assert any(name in system and name in " ".join(answers) for name in system_prompts.PERSONA_NAMES)


def test_restyled_rows_keep_the_question_and_change_the_answer() -> None:
    row = {"messages": [{"role": "user", "content": "Colour of grass?"}, {"role": "assistant",
        "content": "Green grass"}],
           "source": "s", "task": "t"}  # fmt: skip
    seen = set()
    for seed in range(200):
        changed = system_prompts.restyled(row, Random(seed))
        assert changed is not None
        assert "green grass" in changed["messages"][-1]["content"].lower()
        seen.add(changed["messages"][-1]["content"])
    assert {"GREEN GRASS", "green grass", '"Green grass"', '{"answer": "Green grass"}'} <= seen
    assert row["messages"][1]["content"] == "Green grass"


def test_memory_answers_come_from_earlier_turns(pack: Path) -> None:
    for row in islice(memory.memory(TrainingRecords(pack), Random(2)), 600):
        texts = [message["content"] for message in row["messages"]]
        earlier = " ".join(texts[:-2]) if len(texts) > 2 else texts[-2]
        if row["task"] in ("recall", "recall_correction"):
            last_word = texts[-1].rstrip(".").split()[-1]
            if last_word == "old":
                last_word = texts[-1].split()[-3]
            assert last_word.lower() in earlier.lower()
        elif row["task"] == "recall_chat":
            assert texts[-1] in texts[:-1]
        elif row["task"] == "recall_people":
            assert texts[-1] in " ".join(texts[:-1])


def test_tool_arguments_match_the_schema_and_the_request(pack: Path) -> None:
    for row in islice(tool_programs.tool_programs(TrainingRecords(pack), Random(3)), 500):
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in row["tools"]}
        for message in row["messages"]:
            for call in message.get("tool_calls", ()):
                function = call["function"]
                schema = schemas[function["name"]]
                assert set(schema["required"]) <= set(function["arguments"]) <= set(schema["properties"])
                kinds = {"string": str, "integer": int, "number": int, "boolean": bool}
                for name, value in function["arguments"].items():
                    assert isinstance(value, kinds[schema["properties"][name]["type"]])
                    assert value in schema["properties"][name].get("enum", [value])
                if function["name"] == "calculate":
                    result = json.loads(row["messages"][-2]["content"])["result"]
                    assert eval(function["arguments"]["expression"]) == result
