"""What is measured: which file, under which licence, with which wording, by which metric.

The wordings of classification, translation and summarisation do not occur in the instruction data, so these scores
are zero-shot in wording; the `instructions` tasks use its wordings on fresh draws.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from kilonova.core.errors import DataError, InvalidRequest, nearest
from kilonova.data.instruct import list_programs, memory, system_prompts, text_programs, tool_programs
from kilonova.data.instruct.classification import QUESTION_TYPES, spoken_label
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.translation import LANGUAGE_NAMES
from kilonova.data.sources import read_rows

Row = dict[str, Any]
TRANSLATED_LANGUAGES = ("deu", "fra", "spa", "ita", "por", "nld", "rus", "swe", "dan", "epo")
READ_LANGUAGES = (*TRANSLATED_LANGUAGES, "pol", "tur", "jpn", "cmn", "ara", "hin")
SENTENCE_LANGUAGE = "eng"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One measurement; `file` lies below the data root, `note` says what a reader of the score must know.

    Rows whose text also occurs in `training_files`, letter case and punctuation aside, are left out where the data
    root holds those files.
    """

    name: str
    group: str
    file: str
    origin: str
    licence: str
    metric: str
    note: str = ""
    training_files: tuple[str, ...] = ()

    def rows(self, data_root: Path) -> Iterator[Row]:
        """The rows of the task's file. Raises DataError where it is missing or malformed."""
        path = data_root / self.file
        if not path.is_file():
            raise DataError(f"task {self.name!r}: no file {path}")
        return read_rows(path)

    def unseen_rows(self, data_root: Path, fields: Sequence[str] = ("text",)) -> list[Row]:
        """The rows none of whose `fields` holds a text that occurs in a training file."""
        seen: set[str] = set()
        for name in self.training_files:
            if (data_root / name).is_file():
                seen |= _texts(data_root / name, tuple(fields))
        return [row for row in self.rows(data_root) if not any(_plain(row[field]) in seen for field in fields)]


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


@cache
def _texts(path: Path, fields: tuple[str, ...]) -> frozenset[str]:
    return frozenset(_plain(row[field]) for row in read_rows(path) for field in fields if field in row)


@dataclass(frozen=True, kw_only=True)
class TextTask(Task):
    """Bits per byte of running text; `text` gives a row's text or None to leave it out."""

    metric: str = "bits_per_byte"
    text: Callable[[Row], str | None] = field(default=lambda row: row["text"])


@dataclass(frozen=True)
class ChoiceExample:
    """A prompt and the label that answers it."""

    prompt: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class ChoiceTask(Task):
    """Accuracy of the most likely label; `read` gives text and label, `template` takes `{text}` and `{labels}`."""

    metric: str = "accuracy"
    template: str
    read: Callable[[Row], tuple[str, str]]
    labels: tuple[str, ...] | None = None

    def load(self, data_root: Path, limit: int, seed: int) -> tuple[tuple[str, ...], list[ChoiceExample]]:
        """All labels of the task, and at most `limit` examples drawn by `seed`."""
        labels = self.labels or tuple(sorted({self.read(row)[1] for row in self.rows(data_root)}))
        pairs = [self.read(row) for row in self.unseen_rows(data_root)]
        shown = ", ".join(labels)
        return labels, [
            ChoiceExample(self.template.format(text=text.strip(), labels=shown), label)
            for text, label in draw(pairs, limit, seed)
        ]


@dataclass(frozen=True)
class GenerationExample:
    """A conversation to answer, what counts as right, and what a simple baseline would answer.

    A document longer than the context holds is cut at `document`'s end: `messages` is then made from what is left.
    """

    messages: Callable[[str], list[Row]]
    references: tuple[str, ...]
    baseline: str = ""
    document: str = ""
    tools: tuple[Row, ...] = ()
    part: str = ""


@dataclass(frozen=True, kw_only=True)
class GenerationTask(Task):
    """Greedy answers of at most `max_tokens`, scored by chrF, ROUGE or exact match."""

    max_tokens: int
    baseline: str
    read: Callable[[GenerationTask, Path, int, int], list[GenerationExample]]

    def load(self, data_root: Path, limit: int, seed: int) -> list[GenerationExample]:
        """At most `limit` examples drawn by `seed`."""
        return self.read(self, data_root, limit, seed)


def draw(items: Sequence[Any], limit: int, seed: int) -> list[Any]:
    """At most `limit` items, a sample by `seed` in a random order."""
    return Random(seed).sample(list(items), min(limit, len(items)))


def plain_prompt(text: str) -> Callable[[str], list[Row]]:
    """A conversation of one user turn that has no document."""
    return lambda _: [{"role": "user", "content": text}]


def lead_sentences(text: str, count: int = 3) -> str:
    """The first sentences of a text, or the first turns of a dialogue."""
    if text.lstrip().startswith("#Person"):
        return " ".join(text.strip().split("\n")[:count])
    pieces = " ".join(text.split()).split(". ")
    return ". ".join(pieces[:count]).rstrip(".") + "."


def read_translations(task: GenerationTask, data_root: Path, limit: int, seed: int) -> list[GenerationExample]:
    """Sentence pairs in one direction; the task's name ends in `-SOURCE-TARGET`."""
    source, target = task.name.split("-")[-2:]
    language = target if source == SENTENCE_LANGUAGE else source
    into = "English" if target == SENTENCE_LANGUAGE else LANGUAGE_NAMES[target]
    rows = task.unseen_rows(data_root, ("text", "english"))
    pairs = [(row["text"], row["english"]) for row in rows if row["lang"] == language]
    examples = []
    for foreign, english in draw(pairs, limit, seed):
        text, reference = (foreign, english) if source == language else (english, foreign)
        prompt = f"Translate the sentence into {into}.\n\nSentence: {text}"
        examples.append(GenerationExample(plain_prompt(prompt), (reference,), baseline=text))
    return examples


def read_dialogues(task: GenerationTask, data_root: Path, limit: int, seed: int) -> list[GenerationExample]:
    """Everyday dialogues with three reference summaries each."""
    instruction = "Write a one-sentence summary of the following dialogue."
    return [
        GenerationExample(
            lambda document: [{"role": "user", "content": f"{instruction}\n\n{document}"}],
            tuple(row[f"summary{number}"] for number in (1, 2, 3)),
            baseline=lead_sentences(row["dialogue"]),
            document=row["dialogue"].strip(),
        )
        for row in draw(list(task.rows(data_root)), limit, seed)
    ]


def read_stories(task: GenerationTask, data_root: Path, limit: int, seed: int) -> list[GenerationExample]:
    """Questions about whole stories, with four reference answers each."""
    cases = [(row["document"], question) for row in task.rows(data_root) for question in row["questions"]]
    examples = []
    for document, question in draw(cases, limit, seed):
        asked = question["question_text"]
        examples.append(
            GenerationExample(
                lambda text, asked=asked: [  # type: ignore[misc]
                    {"role": "user", "content": f"{text}\n\nAnswer in a few sentences about this story: {asked}"}
                ],
                tuple(response["response_text"] for response in question["responses"]),
                baseline=lead_sentences(document),
                document=" ".join(document.split()),
            )
        )
    return examples


PROGRAMS = {
    "instructions-text": text_programs.text_programs,
    "instructions-lists": list_programs.list_programs,
    "instructions-system": system_prompts.system_prompts,
    "instructions-memory": memory.memory,
    "instructions-tools": tool_programs.tool_programs,
}
PROGRAM_SEED = "held-out"


def read_programs(task: GenerationTask, data_root: Path, limit: int, seed: int) -> list[GenerationExample]:
    """Program tasks drawn afresh; the last turn, or the first tool call, is what must be answered."""
    rows = PROGRAMS[task.name](TrainingRecords(data_root), Random(f"{PROGRAM_SEED}:{task.name}:{seed}"))
    examples = []
    for row in islice(rows, limit):
        messages = row["messages"]
        call = next((at for at, message in enumerate(messages) if "tool_calls" in message), None)
        at = len(messages) - 1 if call is None else call
        expected = (
            messages[at]["content"] if call is None else tool_call_text(messages[call]["tool_calls"][0]["function"])
        )
        context = list(messages[:at])
        examples.append(
            GenerationExample(
                lambda _, context=context: context,  # type: ignore[misc]
                (expected,),
                baseline=context[-1]["content"],
                tools=tuple(row.get("tools", ())),
                part=row["task"],
            )
        )
    return examples


def tool_call_text(function: Row) -> str:
    """A tool call in one comparable form."""
    import json

    return json.dumps({"name": function["name"], "arguments": function["arguments"]}, sort_keys=True)


LASER = "facebookresearch/LASER@74bc6ae7ffb7"
TATOEBA_LICENCE = "CC BY 2.0 FR (Tatoeba)"
NLTK = "nltk/nltk_data@5db857e6f7df"


def _sentiment(row: Row) -> tuple[str, str]:
    return row["text"], ("negative", "positive")[int(row["label"])]


def _question_type(row: Row) -> tuple[str, str]:
    return row["text"], QUESTION_TYPES[row["label"].split(":")[0]]


def _bank_intent(row: Row) -> tuple[str, str]:
    return row["text"], spoken_label(row["category"])


def _assistant_intent(row: Row) -> tuple[str, str]:
    return row["text"], "out of scope" if row["intent"] == "oos" else spoken_label(row["intent"])


def _language_text(language: str) -> Callable[[Row], str | None]:
    return lambda row: row["text"] if row["lang"] == language else None


TASKS: tuple[Task, ...] = (
    TextTask(
        name="books", group="language", file="text/books_en_val.jsonl.zst", licence="public domain",
        origin="mlschmitt/classic-books-markdown@944882722e9a", note="held-back English books",
    ),
    TextTask(
        name="openstax", group="language", file="text/openstax_en_val.jsonl.zst", licence="CC BY 4.0",
        origin="openstax/osbooks-* (commit per row)", note="held-back textbook modules",
    ),
    TextTask(
        name="wikitext2", group="language", file="eval/wikitext2_test.jsonl.zst", licence="CC BY-SA 3.0",
        origin="pytorch/examples@77f55b912142", note="test articles as tokenised in the file",
    ),
    *(
        TextTask(
            name=f"sentences-{language}", group="language", file="eval/tatoeba_pairs_eval.jsonl.zst", origin=LASER,
            licence=TATOEBA_LICENCE, text=_language_text(language),
            note=f"single sentences in {LANGUAGE_NAMES[language]}",
        )
        for language in READ_LANGUAGES
    ),
    ChoiceTask(
        name="sst2", group="classification", training_files=("sft/sst2_train.jsonl.zst",
        "sft/sentence_polarity_train.jsonl.zst", "sft/subjectivity_train.jsonl.zst"), file="eval/sst2_dev.jsonl.zst",
        origin="forest-snow/alps@3c7ef2c98249",
        licence="MIT (copy); SST itself not stated", read=_sentiment, labels=("negative", "positive"),
        template="Somebody wrote this about a film. Did they find it positive or negative?\n\nComment: {text}",
        note="phrases and sentences, as the file has them",
    ),
    ChoiceTask(
        name="trec", group="classification", training_files=("sft/trec_train.jsonl.zst",),
        file="eval/trec_test.jsonl.zst", origin=NLTK, licence="not stated",
        read=_question_type, labels=tuple(sorted(QUESTION_TYPES.values())),
        template="What sort of thing would answer the question below? One of: {labels}.\n\nQuestion: {text}",
        note="six coarse types",
    ),
    ChoiceTask(
        name="banking77", group="classification", training_files=("sft/banking77_train.jsonl.zst",),
        file="eval/banking77_test.jsonl.zst", read=_bank_intent,
        origin="PolyAI-LDN/task-specific-datasets@57ec275d8078", licence="CC BY 4.0", note="77 intents, all listed",
        template="A bank sorts messages by intent. The intents are: {labels}.\n\nSay which intent this one has: {text}",
    ),
    ChoiceTask(
        name="banking77-unlisted", group="classification", training_files=("sft/banking77_train.jsonl.zst",),
        file="eval/banking77_test.jsonl.zst", read=_bank_intent,
        origin="PolyAI-LDN/task-specific-datasets@57ec275d8078", licence="CC BY 4.0", note="77 intents, none listed",
        template="Tell me the banking intent of what this customer writes: {text}",
    ),
    ChoiceTask(
        name="clinc150", group="classification", training_files=("sft/clinc150_train.jsonl.zst",),
        file="eval/clinc150_test.jsonl.zst", read=_assistant_intent,
        origin="clinc/oos-eval@828f8093932c", licence="CC BY 3.0", note="150 intents and out of scope, all listed",
        template="An assistant knows these intents: {labels}.\n\nSay which intent this request has: {text}",
    ),
    ChoiceTask(
        name="clinc150-unlisted", group="classification", training_files=("sft/clinc150_train.jsonl.zst",),
        file="eval/clinc150_test.jsonl.zst", read=_assistant_intent,
        origin="clinc/oos-eval@828f8093932c", licence="CC BY 3.0", note="150 intents and out of scope, none listed",
        template="Tell me the intent of this request to a voice assistant: {text}",
    ),
    *(
        GenerationTask(
            name=f"translation-{source}-{target}", group="translation",
            training_files=("sft/tatoeba_pairs_train.jsonl.zst",), file="eval/tatoeba_pairs_eval.jsonl.zst",
            origin=LASER, licence=TATOEBA_LICENCE, metric="chrF", max_tokens=96, baseline="copy of the source",
            read=read_translations,
        )
        for language in TRANSLATED_LANGUAGES
        for source, target in ((language, SENTENCE_LANGUAGE), (SENTENCE_LANGUAGE, language))
    ),
    GenerationTask(
        name="dialogsum", group="summarisation", file="eval/dialogsum_test.jsonl.zst",
        origin="cylnlp/dialogsum@848cc8c05e0a",
        licence="CC BY-NC-SA 4.0, evaluation only", metric="ROUGE", max_tokens=96, baseline="first three turns",
        read=read_dialogues, note="best of three references",
    ),
    GenerationTask(
        name="squality", group="summarisation", file="eval/squality_test.jsonl.zst",
        origin="nyu-mll/SQuALITY@dc08d4f57463",
        licence="CC BY 4.0 (summaries); Project Gutenberg licence (stories)", metric="ROUGE", max_tokens=160,
        baseline="first three sentences", read=read_stories,
        note="best of four references; the model sees only as much of the story's start as its context holds",
    ),
    *(
        GenerationTask(
            name=name, group="instructions", file="", origin="this package", licence="Apache-2.0", metric="exact_match",
            max_tokens=96, baseline="copy of the last turn", read=read_programs,
            note="program tasks drawn afresh, in the wordings of the instruction data",
        )
        for name in PROGRAMS
    ),
)  # fmt: skip


def choose_tasks(names: Sequence[str] = ()) -> list[Task]:
    """The tasks of these names or groups, all of them by default, in the order of the list.

    Raises InvalidRequest for an unknown name.
    """
    known = {task.name for task in TASKS} | {task.group for task in TASKS}
    for name in names:
        if name not in known:
            raise InvalidRequest(f"unknown task {name!r}; {nearest(name, known)}", field="tasks")
    return [task for task in TASKS if not names or task.name in names or task.group in names]
