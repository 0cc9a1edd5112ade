"""Runs tasks on a model directory and reports scores beside simple baselines."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import zstandard
from rich.table import Table

import kilonova
from kilonova.core.device import choose_device, choose_dtype
from kilonova.core.errors import ContextLengthExceeded, DataError, InvalidRequest
from kilonova.core.progress import ProgressReporter
from kilonova.core.types import GenerationRequest, Message, SamplingParams, TextBlock, TextDelta, Tool, ToolUse
from kilonova.engine.config import EngineConfig
from kilonova.engine.engine import Engine
from kilonova.engine.generation import Generation
from kilonova.evals.metrics import (
    ROUGE_TYPES,
    Estimate,
    accuracy,
    bootstrap_mean,
    bootstrap_ratio,
    chrf,
    majority_share,
    rouge,
)
from kilonova.evals.scoring import ChoiceScorer, choice_tokens, score_texts
from kilonova.evals.tasks import (
    ChoiceTask,
    GenerationExample,
    GenerationTask,
    Task,
    TextTask,
    choose_tasks,
    tool_call_text,
)
from kilonova.models.checkpoint import load_decoder
from kilonova.models.decoder.model import Decoder
from kilonova.nn.quantized import num_quantized_weights
from kilonova.text.tokenizer import Tokenizer

BYTES_PER_TEXT_ROW = 1024
REQUESTS_AT_ONCE = 64


@dataclass(frozen=True)
class Score:
    """One metric of one task with its 95 % interval; `count` is the examples (bytes for bits per byte)."""

    task: str
    group: str
    metric: str
    value: float
    low: float
    high: float
    count: int
    baselines: dict[str, float]
    licence: str
    origin: str
    note: str = ""
    parts: dict[str, float] = field(default_factory=dict)


@dataclass
class Report:
    """What an evaluation found, and under which settings."""

    model: str
    parameters: int
    limit: int
    seed: int
    version: str
    context_length: int
    seconds: float = 0.0
    scores: list[Score] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)

    def to_json(self) -> str:
        """The report as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def table(self) -> Table:
        """The scores as a table for the terminal."""
        table = Table(title=f"{self.model}: {self.parameters:,} parameters, limit {self.limit}, seed {self.seed}")
        table.add_column("task", no_wrap=True)
        table.add_column("metric")
        table.add_column("score", justify="right")
        table.add_column("95 % interval", justify="right")
        table.add_column("n", justify="right")
        table.add_column("baselines")
        for score in self.scores:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in score.baselines.items())
            interval = f"{score.low:.3f} to {score.high:.3f}"
            table.add_row(score.task, score.metric, f"{score.value:.3f}", interval, f"{score.count:,}", shown)
        return table


def evaluate(
    directory: str | Path,
    data_root: str | Path,
    tasks: Sequence[str] = (),
    limit: int = 300,
    seed: int = 0,
    context_length: int | None = None,
) -> Report:
    """Scores the model in `directory` on the named tasks or groups (default: all).

    `limit` is the most examples a task takes, drawn by `seed`; bits per byte read 1024 bytes for each.
    `context_length` (default: all the model holds) bounds the windows of bits per byte and the prompts of generation.
    Raises InvalidRequest for an unknown task or a limit below 1, DataError for a missing file, CheckpointError for a
    bad model directory.
    """
    directory, root = Path(directory), Path(data_root)
    chosen = choose_tasks(tasks)
    if limit < 1:
        raise InvalidRequest(f"limit must be at least 1, not {limit}", field="limit")
    if not root.is_dir():
        raise DataError(f"data root {root} is not a directory")
    device = choose_device()
    dtype = choose_dtype("auto", device)
    model = load_decoder(directory, dtype=dtype, device=device)
    tokenizer = Tokenizer.from_directory(directory)
    start = time.perf_counter()
    longest = model.config.max_position_embeddings
    context = min(context_length or longest, longest)
    report = Report(_model_name(directory), model.num_parameters(), limit, seed, kilonova.__version__, context)
    generates = any(isinstance(task, GenerationTask) for task in chosen)
    engine = None
    if generates:
        # An engine takes the integers of quantised layers for itself, and other tasks need them too.
        own = load_decoder(directory, dtype=dtype, device=device) if num_quantized_weights(model) else model
        engine = Engine(own, tokenizer, EngineConfig(max_context=context))
    try:
        with ProgressReporter("evaluate: tasks", len(chosen)) as progress:
            for number, task in enumerate(chosen, start=1):
                report.scores += _scores(task, model, tokenizer, engine, root, report)
                progress.update(number, task.name)
    finally:
        if engine is not None:
            engine.close()
    report.seconds = round(time.perf_counter() - start, 1)
    return report


def _model_name(directory: Path) -> str:
    """The folder's name, with its parents' where the folder is only called `model`."""
    path = directory.resolve()
    return "/".join(path.parts[-3:]) if path.name == "model" else path.name


def _scores(
    task: Task, model: Decoder, tokenizer: Tokenizer, engine: Engine | None, root: Path, report: Report
) -> list[Score]:
    limit, seed = report.limit, report.seed
    if isinstance(task, TextTask):
        return [score_text_task(task, model, tokenizer, root, limit, seed, report.context_length)]
    if isinstance(task, ChoiceTask):
        return [score_choice_task(task, model, tokenizer, root, limit, seed)]
    if isinstance(task, GenerationTask) and engine is not None:
        return score_generation_task(task, engine, root, limit, seed)
    raise TypeError(f"no way to score {type(task).__name__}")


def _score(
    task: Task, metric: str, estimate: Estimate, count: int, baselines: dict[str, float], parts: dict[str, float]
) -> Score:
    shown = {name: round(value, 4) for name, value in baselines.items()}
    return Score(
        task.name, task.group, metric, round(estimate.value, 4), round(estimate.low, 4), round(estimate.high, 4), count,
        shown, task.licence, task.origin, task.note, {name: round(value, 4) for name, value in sorted(parts.items())},
    )  # fmt: skip


def score_text_task(
    task: TextTask, model: Decoder, tokenizer: Tokenizer, root: Path, limit: int, seed: int, context: int | None = None
) -> Score:
    """Bits per byte of the start of every document, beside what zstandard at level 19 needs for the same bytes."""
    texts = [text for row in task.rows(root) if (text := task.text(row))]
    if not texts:
        raise DataError(f"task {task.name!r}: no text in {task.file}")
    if max(map(len, texts)) < BYTES_PER_TEXT_ROW:
        texts = ["\n".join(texts)]
    budget = limit * BYTES_PER_TEXT_ROW
    taken: list[str] = []
    for left, text in zip(range(len(texts), 0, -1), sorted(texts, key=len), strict=True):
        share = budget // left
        taken.append(text.encode()[:share].decode(errors="ignore") if len(text.encode()) > share else text)
        budget -= len(taken[-1].encode())
    scored = score_texts(model, tokenizer, [text for text in taken if text], context=context)
    estimate = bootstrap_ratio(scored.nats, scored.bytes, seed)
    # Block sizes can be off by a character cut in two; the score itself uses the exact total.
    shift = scored.bits_per_byte / estimate.value
    exact = Estimate(scored.bits_per_byte, estimate.low * shift, estimate.high * shift)
    compressed = len(zstandard.ZstdCompressor(level=19).compress("\n".join(taken).encode()))
    baselines = {"zstd -19": 8 * compressed / scored.total_bytes}
    parts = {"bytes_per_token": scored.total_bytes / scored.total_tokens}
    return _score(task, task.metric, exact, scored.total_bytes, baselines, parts)


def score_choice_task(
    task: ChoiceTask, model: Decoder, tokenizer: Tokenizer, root: Path, limit: int, seed: int
) -> Score:
    """Accuracy of the label that is the most likely whole answer, its end token included."""
    labels, examples = task.load(root, limit, seed)
    scorer = ChoiceScorer(model, choice_tokens(tokenizer, labels))
    correct: list[bool] = []
    for example in examples:
        prompt = tokenizer.encode_template_messages([{"role": "user", "content": example.prompt}])
        scores = scorer.score(prompt)
        correct.append(labels[scores.index(max(scores))] == example.answer)
    answers = [example.answer for example in examples]
    by_label: dict[str, list[bool]] = defaultdict(list)
    for answer, is_correct in zip(answers, correct, strict=True):
        by_label[answer].append(is_correct)
    baselines = {"majority": majority_share(answers), "random": 1 / len(labels)}
    parts = {label: sum(found) / len(found) for label, found in by_label.items()} if len(labels) <= 10 else {}
    return _score(task, task.metric, accuracy(correct), len(examples), baselines, parts)


def score_generation_task(task: GenerationTask, engine: Engine, root: Path, limit: int, seed: int) -> list[Score]:
    """Greedy answers of the engine, scored by the task's metric, beside the task's baseline."""
    examples = task.load(root, limit, seed)
    prompts = [_fitted(example, engine, task.max_tokens) for example in examples]
    found = generate(engine, [messages for messages, _ in prompts], [e.tools for e in examples], task.max_tokens)
    answers = [answer or "" for answer in found]
    copies = [example.baseline for example in examples]
    cut = {"cut_to_context": sum(is_cut for _, is_cut in prompts) / len(prompts)} if examples[0].document else {}
    if task.metric == "chrF":
        references = [example.references[0] for example in examples]
        baseline = {task.baseline: chrf(copies, references).value}
        return [_score(task, "chrF", chrf(answers, references), len(examples), baseline, cut)]
    if task.metric == "ROUGE":
        scored = [rouge(answer, example.references) for answer, example in zip(answers, examples, strict=True)]
        base = [rouge(copy, example.references) for copy, example in zip(copies, examples, strict=True)]
        return [
            _score(
                task, f"ROUGE-{name.removeprefix('rouge')}", bootstrap_mean([row[name] for row in scored], seed),
                len(examples),
                {task.baseline: sum(row[name] for row in base) / len(base)}, cut,
            )
            for name in ROUGE_TYPES
        ]  # fmt: skip
    correct = [answer.strip() == example.references[0] for answer, example in zip(answers, examples, strict=True)]
    parts: dict[str, list[bool]] = defaultdict(list)
    for example, is_correct in zip(examples, correct, strict=True):
        parts[example.part].append(is_correct)
    baseline = {
        task.baseline: sum(copy == e.references[0] for copy, e in zip(copies, examples, strict=True)) / len(copies)
    }
    shares = {part: sum(values) / len(values) for part, values in parts.items()}
    if None in found:
        shares["did_not_fit"] = found.count(None) / len(found)
    return [_score(task, "exact_match", accuracy(correct), len(examples), baseline, shares)]


def _fitted(example: GenerationExample, engine: Engine, max_tokens: int) -> tuple[tuple[Message, ...], bool]:
    """The conversation with the document cut to what the context holds beside prompt and answer, and whether it was."""
    if not example.document:
        return _messages(example.messages("")), False
    tokenizer = engine.tokenizer
    frame = len(tokenizer.encode_chat(_messages(example.messages(""))))
    room = engine.context_length - max_tokens - frame - 8
    tokens = tokenizer.encode(example.document)
    if len(tokens) <= room:
        return _messages(example.messages(example.document)), False
    text = tokenizer.decode(tokens[:room]).rstrip("\ufffd")
    return _messages(example.messages(text)), True


def _messages(rows: Sequence[dict[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message(row["role"], (TextBlock(row["content"]),)) for row in rows)


def generate(
    engine: Engine, prompts: Sequence[tuple[Message, ...]], tools: Sequence[Sequence[dict[str, Any]]], max_tokens: int
) -> list[str | None]:
    """The greedy answer to every conversation, None where it does not fit; a tool call becomes one JSON object."""
    answers: list[str | None] = []
    sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    for start in range(0, len(prompts), REQUESTS_AT_ONCE):
        group = range(start, min(start + REQUESTS_AT_ONCE, len(prompts)))
        running = [_submit(engine, prompts[index], tools[index], sampling) for index in group]
        for generation in running:
            if generation is None:
                answers.append(None)
                continue
            text, call = "", ""
            for event in generation:
                if isinstance(event, TextDelta):
                    text += event.text
                elif isinstance(event, ToolUse) and not call:
                    call = tool_call_text({"name": event.block.name, "arguments": dict(event.block.input)})
            answers.append(call or text)
    return answers


def _submit(
    engine: Engine, messages: tuple[Message, ...], tools: Sequence[dict[str, Any]], sampling: SamplingParams
) -> Generation | None:
    offered = tuple(Tool(**tool["function"]) for tool in tools)
    try:
        return engine.submit(GenerationRequest(model="", messages=messages, tools=offered, sampling=sampling))
    except ContextLengthExceeded:
        return None


def sample_answers(directory: str | Path, prompts: Sequence[str], max_tokens: int = 64) -> list[dict[str, str]]:
    """The model's greedy answer to every prompt, as `prompt` and `answer`, for the model card."""
    engine = Engine.from_directory(directory)
    try:
        messages = [_messages([{"role": "user", "content": prompt}]) for prompt in prompts]
        answers = generate(engine, messages, [()] * len(prompts), max_tokens)
    finally:
        engine.close()
    return [{"prompt": prompt, "answer": answer or ""} for prompt, answer in zip(prompts, answers, strict=True)]
