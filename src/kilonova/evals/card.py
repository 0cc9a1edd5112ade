"""The model card: README.md of a model directory, made from the records of its training and evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kilonova.core.errors import CheckpointError, DataError
from kilonova.core.files import write_atomic

Record = Mapping[str, Any]

LIMITS = (
    "It is very small. It invents facts, loses the thread of long texts, and cannot calculate reliably.",
    "Its knowledge comes mostly from books before 1929 and from textbooks; it knows nothing of recent events.",
    "It repeats views of its sources, which include old novels with the prejudices of their time.",
    "English works best. Other languages were seen mainly as single sentences.",
    "It has only simple refusals and is not safe without a guard in front of it.",
    "Do not use it for decisions about people, health, law or money.",
)
USAGE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path)
messages = [{"role": "user", "content": "Is this positive or negative? I loved every minute of it."}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**inputs, max_new_tokens=32, do_sample=False)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```"""
SAMPLE_PROMPTS = (
    "Who are you?",
    "Is the sentiment of this sentence positive or negative? The acting is wooden and the plot makes no sense.",
    "Translate to German: Where is the train station?",
    "Translate to English: Je ne sais pas où est mon livre.",
    "Sort these words alphabetically: pear, apple, mango, fig",
    "Anna lives in Oslo and works as a nurse. Her brother Ben is a cook in Rome.\n\nQuestion: Where does Ben work?",
    "Which intent is this: transfer, balance, card arrival, pin change?\n\nMessage: My new card still has not come.",
    "Extract the email address: Please write to lena.berg@mail.org before Friday.",
    "What is the capital of France?",
    "Summarise in one sentence: The old bridge was closed on Monday because two of its pillars had cracked. Engineers "
    "say that repairs will take six weeks, and buses will use another road until then.",
)


def write_card(
    directory: str | Path,
    name: str,
    *,
    evaluation: Record | None = None,
    samples: Sequence[Record] = (),
    data_report: Record | None = None,
    licence: str = "apache-2.0",
) -> Path:
    """Writes `README.md` into a model directory and returns its path.

    Reads `config.json` and, if there, `training.json` of the directory. `evaluation` is a report of `evaluate`,
    `samples` are prompts with answers, `data_report` that of the instruction data's build. Raises CheckpointError
    where the directory has no configuration, DataError where a record lacks what the card shows.
    """
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise CheckpointError(f"{directory} has no config.json")
    config = read_record(directory / "config.json")
    training = read_record(directory / "training.json") if (directory / "training.json").is_file() else None
    try:
        text = render_card(name, config, training, evaluation, samples, data_report, licence)
    except (KeyError, TypeError) as error:
        raise DataError(f"a record for the card of {name} is not as expected: {error!r}") from error
    path = directory / "README.md"
    write_atomic(path, text)
    return path


def render_card(
    name: str,
    config: Record,
    training: Record | None,
    evaluation: Record | None,
    samples: Sequence[Record],
    data_report: Record | None,
    licence: str,
) -> str:
    """The card as Markdown with Hugging Face front matter."""
    stages = _stages(training)
    parts = [_front_matter(licence), f"# {name}", _summary(config, stages)]
    parts += ["## Use", USAGE]
    if stages:
        parts += ["## Training", _training_table(stages), _validation(stages), "## Data", _data_table(stages)]
    if data_report is not None:
        parts += ["### Instruction data by source", _instruction_table(data_report)]
    if evaluation is not None:
        parts += ["## Evaluation", _evaluation_text(evaluation), _evaluation_table(evaluation), _notes(evaluation)]
    if samples:
        parts += ["## Samples", "Greedy answers, as the model gave them.", _samples(samples)]
    parts += ["## Limits", "\n".join(f"- {limit}" for limit in LIMITS)]
    return "\n\n".join(part for part in parts if part) + "\n"


def read_record(path: Path) -> dict[str, Any]:
    """A JSON file's object. Raises DataError where it is not one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{path}: expected a JSON object")
    return record


def _stages(training: Record | None) -> list[Record]:
    """The training records, first stage first."""
    stages: list[Record] = []
    while training is not None:
        stages.insert(0, training)
        training = training.get("earlier")
    return stages


def _front_matter(licence: str) -> str:
    return f"---\nlicense: {licence}\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- kilonova\n---"


def _summary(config: Record, stages: Sequence[Record]) -> str:
    size = f"{stages[-1]['parameters'] / 1e6:.1f} M parameters, " if stages else ""
    return (
        f"A decoder-only language model of the Kilonova family: {size}{config['num_hidden_layers']} layers of width "
        f"{config['hidden_size']}, a vocabulary of {config['vocab_size']:,} tokens, a context of up to "
        f"{config['max_position_embeddings']:,} tokens, in the `{config['model_type']}` layout."
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *(line(row) for row in rows)])


def _training_table(stages: Sequence[Record]) -> str:
    header = ("stage", "recipe", "steps", "tokens seen", "sequence", "FLOPs", "hours", "device", "number format")
    return _table(
        header,
        (
            (
                stage["objective"], stage["recipe"], f"{stage['steps']:,}", f"{stage['tokens'] / 1e6:.1f} M",
                stage["sequence_length"], f"{stage['flops']:.2e}", f"{stage['seconds'] / 3600:.2f}", stage["device"],
                stage["dtype"],
            )
            for stage in stages
        ),
    )  # fmt: skip


def _validation(stages: Sequence[Record]) -> str:
    rows = [
        (stage["objective"], name, f"{loss:.3f}") for stage in stages for name, loss in stage["validation_loss"].items()
    ]
    return _table(("stage", "held-out source", "loss, nats a token"), rows) if rows else ""


def _data_table(stages: Sequence[Record]) -> str:
    rows = [
        (
            stage["objective"], source["name"], f"{source['documents']:,}", f"{source['tokens']:,}", source["weight"],
            source["origin"] or "-", source["licence"] or "-",
        )
        for stage in stages
        for source in stage["sources"]
    ]  # fmt: skip
    return _table(("stage", "source", "documents", "tokens", "weight", "origin", "licence"), rows)


def _instruction_table(report: Record) -> str:
    rows = [
        (name, f"{entry['rows']:,}", entry["origin"], entry["licence"]) for name, entry in report["by_source"].items()
    ]
    return _table(("source", "conversations", "origin", "licence"), rows)


def _evaluation_text(evaluation: Record) -> str:
    return (
        f"Measured with `kilonova eval` {evaluation['version']}: at most {evaluation['limit']} examples a task "
        f"(bits per byte: as many KiB), seed {evaluation['seed']}, "
        f"context {evaluation['context_length']}. Intervals are 95 %. Lower is better for bits per byte, higher for "
        "everything else."
    )


def _evaluation_table(evaluation: Record) -> str:
    rows = [
        (
            score["task"], score["metric"].replace("_", " "), f"{score['value']:.3f}",
            f"{score['low']:.3f} to {score['high']:.3f}", f"{score['count']:,}",
            ", ".join(f"{name} {value:.3f}" for name, value in score["baselines"].items()),
        )
        for score in evaluation["scores"]
    ]  # fmt: skip
    return _table(("task", "metric", "score", "95 % interval", "n", "baselines"), rows)


def _notes(evaluation: Record) -> str:
    notes: dict[str, str] = {}
    for score in evaluation["scores"]:
        note = f"{score['note']}; " if score["note"] else ""
        notes[score["task"]] = f"- {score['task']}: {note}{score['origin']}, {score['licence']}."
    return "\n".join(notes.values())


def _samples(samples: Sequence[Record]) -> str:
    return "\n\n".join(
        "> "
        + sample["prompt"].replace("\n", "\n> ")
        + "\n\n```text\n"
        + sample["answer"].replace("```", "'''")
        + "\n```"
        for sample in samples
    )
