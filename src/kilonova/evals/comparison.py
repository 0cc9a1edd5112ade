"""A model beside one that was made from it: what became better and what worse."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from kilonova.core.device import choose_device, choose_dtype
from kilonova.core.errors import DataError
from kilonova.core.progress import ProgressReporter
from kilonova.core.types import GenerationRequest, SamplingParams
from kilonova.data.standard_library import documentation
from kilonova.engine.engine import Engine
from kilonova.evals.run import evaluate
from kilonova.evals.scoring import score_texts
from kilonova.models.calibration import text_documents
from kilonova.models.checkpoint import load_decoder
from kilonova.text.tokenizer import Tokenizer

CONTEXT = 1024
TEXT_BYTES = 256 * 1024
_PROMPT_TOKENS, _DECODED_TOKENS, _REPEATS = 32, 128, 3


@dataclass(frozen=True)
class Measured:
    """What was measured of one model.

    `weight_bytes` is the size of its weights on disk, `decode_tokens_per_s` the speed of one stream, `scores` are of
    tasks.
    """

    name: str
    parameters: int
    weight_bytes: int
    bits_per_byte: float
    decode_tokens_per_s: float
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Two models measured alike; `text_bytes` is how much text bits per byte rest on."""

    before: Measured
    after: Measured
    text: str
    text_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return asdict(self)

    def table(self) -> Table:
        """The comparison as a table for the terminal."""
        before, after = self.before, self.after
        table = Table(
            "", before.name, after.name, "change", title=f"bits per byte of {self.text_bytes:,} bytes of {self.text}"
        )
        rows: list[tuple[str, float, float, str]] = [
            ("parameters", before.parameters, after.parameters, ","),
            ("weights on disk, bytes", before.weight_bytes, after.weight_bytes, ","),
            ("bits per byte", before.bits_per_byte, after.bits_per_byte, ".4f"),
            ("decode, tokens/s", before.decode_tokens_per_s, after.decode_tokens_per_s, ",.0f"),
            *((name, score, after.scores[name], ".3f") for name, score in before.scores.items()),
        ]
        for name, first, second, form in rows:
            change = f"{100 * (second / first - 1):+.2f} %" if first else ""
            table.add_row(name, format(first, form), format(second, form), change)
        return table


def compare(
    before: str | Path,
    after: str | Path,
    *,
    text: Path | None = None,
    data_root: Path | None = None,
    tasks: Sequence[str] = ("classification",),
    limit: int = 300,
    context: int = CONTEXT,
    quiet: bool = False,
) -> Comparison:
    """Measure the models in two directories on the same text and, with `data_root`, the same tasks of `evaluate`.

    `text` is a `.txt`, `.jsonl` or `.jsonl.zst` file; None means documentation from Python's standard library that
    calibration leaves out. The first 256 KiB count, every document by itself in windows of `context` tokens.
    """
    texts = held_out_texts(text)
    measured = []
    with ProgressReporter("compare: models", 2, quiet=quiet) as progress:
        for number, directory in enumerate((Path(before), Path(after)), start=1):
            measured.append(_measure(directory, texts, data_root, tasks, limit, context))
            progress.update(number)
    described = "the standard library's documentation" if text is None else text.name
    return Comparison(measured[0], measured[1], described, sum(len(part.encode()) for part in texts))


def held_out_texts(file: Path | None, limit: int = TEXT_BYTES) -> list[str]:
    """The first `limit` bytes of the documents of a file, or of Python's documentation that calibration leaves out."""
    taken: list[str] = []
    for text in documentation("held-out") if file is None else text_documents(file):
        if part := text.encode()[:limit].decode(errors="ignore"):
            taken.append(part)
        limit -= len(text.encode())
        if limit <= 0:
            break
    if not taken:
        raise DataError(f"{file}: no text in it")
    return taken


def _measure(
    directory: Path, texts: Sequence[str], data_root: Path | None, tasks: Sequence[str], limit: int, context: int
) -> Measured:
    device = choose_device()
    model = load_decoder(directory, dtype=choose_dtype("auto", device), device=device)
    tokenizer = Tokenizer.from_directory(directory)
    scored = score_texts(model, tokenizer, texts, context=context)
    parameters = model.num_parameters()
    speed = _decode_speed(Engine(model, tokenizer), tokenizer.encode(texts[0]))
    del model
    scores = {}
    if data_root is not None:
        report = evaluate(directory, data_root, tasks, limit)
        scores = {f"{score.task} {score.metric}": score.value for score in report.scores}
    size = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    return Measured(directory.resolve().name, parameters, size, scored.bits_per_byte, speed, scores)


def _decode_speed(engine: Engine, text: Sequence[int]) -> float:
    """Tokens a second of one greedy stream behind a short prompt, the median of some; closes the engine."""
    prompt, length = tuple(text[:_PROMPT_TOKENS]), min(_DECODED_TOKENS, engine.context_length - _PROMPT_TOKENS)
    speeds = []
    try:
        for _ in range(_REPEATS):
            seconds = []
            for tokens in (1, length):
                sampling = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
                engine.reset_prefix_cache()
                start = time.perf_counter()
                for _ in engine.submit(GenerationRequest(model="", prompt=prompt, sampling=sampling)):
                    pass
                seconds.append(time.perf_counter() - start)
            speeds.append((length - 1) / max(seconds[1] - seconds[0], 1e-9))
    finally:
        engine.close()
    return statistics.median(speeds)
