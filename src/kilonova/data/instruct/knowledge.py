"""Questions with known answers: country facts, school arithmetic, common sense, and command lines."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from random import Random

from kilonova.data.instruct.conversation import Row, clip, exchange, shuffled
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.wording import ask

COUNTRY_QUESTIONS: dict[str, tuple[str, ...]] = {
    "Capital: name": (
        "What is the capital of {country}?", "Which city is the capital of {country}?",
        "Name the capital of {country}.",
        "{country}: what is its capital?", "Tell me the capital city of {country}.", "Capital of {country}?"),
    "Geography: Location": (
        "Where is {country}?", "Where is {country} located?", "In which part of the world is {country}?",
        "Describe the location of {country}.", "Where can I find {country} on a map?",
        "Give the location of {country}."),
    "Languages: Languages": (
        "Which languages are spoken in {country}?", "What languages do people speak in {country}?",
        "Name the languages of {country}.", "What is spoken in {country}?", "List the languages of {country}.",
        "Languages of {country}?"),
    "People and Society: Religions": (
        "Which religions are there in {country}?", "What are the religions of {country}?",
        "Name the religions of {country}.", "What do people in {country} believe in?",
        "List the religions of {country}.", "Which faiths are found in {country}?"),
    "Population: total": (
        "What is the population of {country}?", "How many people live in {country}?",
        "How large is the population of {country}?", "Give the number of inhabitants of {country}.",
        "How many inhabitants does {country} have?", "Population of {country}?"),
    "Area: total": (
        "How large is {country}?", "What is the area of {country}?", "What is the total area of {country}?",
        "Give the size of {country}.", "How big is {country}?", "Area of {country}?"),
    "Elevation: highest point": (
        "What is the highest point of {country}?", "Which is the highest place in {country}?",
        "Name the highest point in {country}.", "Where is the highest point of {country}?",
        "What is the highest elevation in {country}?", "Highest point of {country}?"),
    "Geography: Climate": (
        "What is the climate of {country}?", "Describe the climate of {country}.",
        "What is the weather like in {country}?",
        "What climate does {country} have?", "Tell me about the climate in {country}.", "Climate of {country}?"),
    "Geography: Terrain": (
        "What is the terrain of {country} like?", "Describe the landscape of {country}.",
        "What does the land look like in {country}?", "Tell me about the terrain of {country}.",
        "What kind of terrain does {country} have?", "Terrain of {country}?"),
    "Geography: Natural resources": (
        "What natural resources does {country} have?", "Name the natural resources of {country}.",
        "Which resources are found in {country}?", "List the natural resources of {country}.",
        "What can be mined or grown in {country}?", "Natural resources of {country}?"),
    "Land boundaries: border countries": (
        "Which countries border {country}?", "What are the neighbours of {country}?",
        "Name the countries that share a border with {country}.", "Who are the neighbours of {country}?",
        "List the border countries of {country}.", "Which countries are next to {country}?"),
    "Geography: Coastline": (
        "How long is the coastline of {country}?", "What is the length of the coast of {country}?",
        "How much coast does {country} have?", "Give the coastline of {country}.",
        "Does {country} have a coast, and how long is it?", "Coastline of {country}?"),
    "Government: Government type": (
        "What type of government does {country} have?", "What is the form of government of {country}?",
        "How is {country} governed?", "Name the government type of {country}.", "What kind of state is {country}?",
        "Government of {country}?"),
    "Nationality: adjective": (
        "What is the adjective for {country}?", "What do you call something from {country}?",
        "Give the adjective that belongs to {country}.", "Which adjective describes things from {country}?",
        "A person from {country} is called what, as an adjective?", "Adjective for {country}?"),
    "Life expectancy at birth: total population": (
        "What is the life expectancy in {country}?", "How long do people live in {country}?",
        "Give the life expectancy at birth in {country}.", "How old do people get in {country}?",
        "What is the average life expectancy of {country}?", "Life expectancy of {country}?"),
    "Economy: Industries": (
        "What industries does {country} have?", "Name the main industries of {country}.",
        "Which industries matter in {country}?", "List the industries of {country}.",
        "What does the industry of {country} make?", "Industries of {country}?"),
    "Economy: Agricultural products": (
        "What are the agricultural products of {country}?", "What do farmers grow in {country}?",
        "Name the farm products of {country}.", "List the agricultural products of {country}.",
        "What does {country} farm?", "Agricultural products of {country}?"),
}  # fmt: skip
CLOSED_BOOK_FIELDS = (
    "Capital: name", "Geography: Location", "Nationality: adjective", "Land boundaries: border countries",
)  # fmt: skip
FIELD_LABELS = {
    "Capital: name": "Capital", "Population: total": "Population", "Area: total": "Area",
    "Economy: Industries": "Industries",
    "Life expectancy at birth: total population": "Life expectancy", "Government: Government type": "Government",
}  # fmt: skip
PASSAGE_TEMPLATES = (
    "{passage}\n\nQuestion: {question}",
    "Read the text and answer the question.\n\n{passage}\n\n{question}",
    "Context: {passage}\n\nQuestion: {question}\nAnswer:",
    "Use the text to answer.\nText: {passage}\nQuestion: {question}",
    "{question}\n\nAnswer from this text:\n{passage}",
    "Answer the question with the help of the passage.\n\nPassage: {passage}\n\nQuestion: {question}",
    "{passage}\n\n{question}",
    "Here is some information:\n{passage}\n\nBased on it, {lowered}",
)
NOT_STATED_ANSWERS = (
    "The text does not say.", "That is not stated in the text.", "The passage does not give this.",
    "I cannot find that in the text.",
)  # fmt: skip
WORKED_INSTRUCTIONS = (
    "Solve the problem step by step.",
    "Work out the answer and show the steps.",
    "Solve this maths problem.",
    "Answer the word problem. Show your work.",
    "Calculate the answer step by step.",
    "Think step by step and give the final number.",
)
COMMAND_TEMPLATES = (
    "Which command does this: {task}?",
    "How do I {lowered} on the command line?",
    "Give me a shell command to {lowered}.",
    "{task} with `{program}`.",
    "What is the `{program}` command to {lowered}?",
    "Show me how to use {program} to {lowered}.",
    "Write one command line: {lowered}.",
)


def passage_question(rng: Random, passage: str, question: str) -> str:
    """A prompt with a passage and a question about it."""
    lowered = question[0].lower() + question[1:]
    return rng.choice(PASSAGE_TEMPLATES).format(passage=passage, question=question, lowered=lowered)


def short_value(value: str) -> str:
    """A field without its asides: the part before the first parenthesis, semicolon or `note:`."""
    value = re.split(r"\s*(?:\(|;|note:|\[)", value)[0]
    return value.strip(" ,:")


def country_fields(text: str) -> dict[str, str]:
    """The named fields of one country profile."""
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        for name in (*COUNTRY_QUESTIONS, "Country name: conventional short form", "Introduction: Background"):
            if line.startswith(name) and line[len(name) :].lstrip().startswith(":"):
                fields.setdefault(name, " ".join(line[len(name) :].lstrip(" :").split()))
    return fields


def countries(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Questions about countries: with a passage of facts, with a passage that lacks the answer, and without one."""
    profiles: list[tuple[str, dict[str, str]]] = []
    for row in records.rows("text/world_factbook"):
        fields = country_fields(row["text"])
        country = short_value(fields.pop("Country name: conventional short form", ""))
        fields.pop("Introduction: Background", None)
        if country and country.lower() != "none" and len(fields) >= 6:
            profiles.append((country, fields))
    while True:
        country, fields = rng.choice(profiles)
        kind = rng.random()
        if kind < 0.2:
            name = rng.choice(CLOSED_BOOK_FIELDS)
            question = rng.choice(COUNTRY_QUESTIONS[name]).format(country=country)
            answer = short_value(fields.get(name, ""))
            if answer and "none" not in answer.lower() and len(answer) < 120:
                if name == "Land boundaries: border countries":
                    answer = ", ".join(
                        short_value(re.sub(r"\s[\d,.]+ km.*", "", part)) for part in fields[name].split(";")
                    )
                if name == "Capital: name" and rng.random() < 0.3:
                    answer = f"The capital of {country} is {answer}."
                yield exchange("world_factbook", "country_fact", question, answer)
            continue
        names = rng.sample(sorted(fields), min(len(fields), rng.randint(2, 6)))
        labels = [FIELD_LABELS.get(name, name.split(": ")[-1].capitalize()) for name in names]
        lines = [f"{label}: {clip(fields[name], 260)}" for label, name in zip(labels, names, strict=True)]
        if rng.random() < 0.5:
            lines = [f"{line.rstrip('.')}." for line in lines]
        passage = (" " if rng.random() < 0.4 else "\n").join(
            [rng.choice((f"{country}.", f"Country: {country}")), *lines]
        )
        if kind < 0.28:
            missing = [name for name in COUNTRY_QUESTIONS if name not in names]
            asked, answer = rng.choice(missing), rng.choice(NOT_STATED_ANSWERS)
        else:
            asked = rng.choice(names)
            whole = clip(fields[asked], 260).rstrip(".")
            answer = short_value(fields[asked]) if rng.random() < 0.5 and len(whole) > 60 else whole
            if not answer or answer not in passage:
                continue
        question = rng.choice(COUNTRY_QUESTIONS[asked]).format(country=country)
        yield exchange("world_factbook", "passage_question", passage_question(rng, passage, question), answer)


def gsm8k(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Grade-school word problems with worked answers, the calculator marks removed."""
    for row in shuffled(records.rows("sft/gsm8k_train"), rng):
        steps, _, number = re.sub(r"<<[^>]*>>", "", row["answer"]).rpartition("####")
        answer = f"{steps.strip()}\nThe answer is {number.strip()}."
        prompt = row["question"] if rng.random() < 0.4 else ask(rng, WORKED_INSTRUCTIONS, row["question"], ("Problem",))
        yield exchange("gsm8k", "word_problem", prompt, answer)


def commonsenseqa(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Five-way choices; the answer is the option's text, or its letter where the prompt asks for the letter."""
    for row in shuffled(records.rows("sft/commonsenseqa_train"), rng):
        stem, choices = row["question"]["stem"], row["question"]["choices"]
        right = next(choice for choice in choices if choice["label"] == row["answerKey"])
        others = [choice["text"] for choice in choices if choice is not right]
        texts = [right["text"], *rng.sample(others, rng.choice((2, 3, 4)))]
        rng.shuffle(texts)
        style = rng.random()
        if style < 0.35:
            letters = "ABCDE"[: len(texts)]
            options = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True))
            ending = rng.choice(("Answer with the letter.", "Which letter is right?", "Reply with one letter."))
            prompt, answer = f"{stem}\n{options}\n{ending}", letters[texts.index(right["text"])]
        else:
            options = ", ".join(texts) if style < 0.8 else "\n" + "\n".join(f"- {text}" for text in texts)
            prompt = rng.choice((
                "{stem}\nChoose from: {options}", "{stem}\nOptions: {options}", "Question: {stem}\nChoices: {options}",
                "Pick the best answer.\n{stem}\n{options}", "{stem} Choose one: {options}",
                "Which of these fits best?\nQuestion: {stem}\n{options}",
            )).format(stem=stem, options=options).replace(": \n", ":\n").replace("\n\n", "\n")  # fmt: skip
            answer = right["text"]
        yield exchange("commonsenseqa", "multiple_choice", prompt, answer)


def command_lines(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """English tldr pages as questions about one command."""
    entries: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in records.rows("text/tech_docs_en"):
        if "tldr-pages" not in row["source"]:
            continue
        program = ""
        task = ""
        for line in row["text"].split("\n"):
            if line.startswith("# "):
                program, task = line[2:].strip(), ""
            elif line.startswith("- ") and line.isascii():
                task = line[2:].strip().rstrip(":")
            elif line.startswith("`") and line.endswith("`") and task and line.isascii():
                command = re.sub(r"\{\{|\}\}", "", line[1:-1].replace("[-", "-"))
                if "[" not in line and len(command) < 120 and not task.lower().startswith(("display help", "view doc")):
                    entries[program].append((re.sub(r"[`\[\]]", "", task), command))
                task = ""
    rows = [(program, task, command) for program, found in entries.items() for task, command in found]
    rng.shuffle(rows)
    for program, task, command in rows:
        lowered = task[0].lower() + task[1:]
        prompt = rng.choice(COMMAND_TEMPLATES).format(task=task, lowered=lowered, program=program.split(" ")[0])
        yield exchange("tldr_pages", "command_line", prompt, f"`{command}`" if rng.random() < 0.3 else command)
