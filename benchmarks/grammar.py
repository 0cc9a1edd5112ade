"""What a grammar costs a stream: time to compile it, and to rule tokens out at every step.

The shipped model writes at temperature 1, one answer at a time and without guesses, under each grammar and free. Then
the masks of its tokens are computed again, to be timed alone, also by xgrammar where it is installed and takes the
grammar. Times of masks are of the processor, so that other programs count little.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from kilonova.core.types import Finished, GenerationRequest, Grammar, SamplingParams, Tool
from kilonova.engine.config import EngineConfig
from kilonova.engine.constraint import Constraint
from kilonova.engine.engine import Engine
from kilonova.models.registry import Registry
from kilonova.text.grammar import Constraints, GrammarCompiler

SHIPPED = "micro"
PROMPT = "Write of a city, its people and its weather."

CITY = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "population": {"type": "integer", "minimum": 0, "maximum": 100_000_000},
        "founded": {"type": "string", "format": "date"},
        "climate": {"enum": ["arid", "continental", "polar", "temperate", "tropical"]},
        "sights": {
            "type": "array",
            "minItems": 2,
            "maxItems": 4,
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 30}, "free": {"type": "boolean"}},
                "required": ["name", "free"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["name", "population", "founded", "climate", "sights"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "string", "pattern": "^[a-z]{3,12}$"},
                "children": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
TOOLS = tuple(Tool(f"tool_{number}", "", CITY) for number in range(20))

CASES = {
    "JSON schema": Constraints(grammar=Grammar("json_schema", CITY)),
    "recursive schema": Constraints(grammar=Grammar("json_schema", TREE)),
    "any JSON object": Constraints(grammar=Grammar("json_object")),
    "20 tools, a call": Constraints(TOOLS, "required"),
    "20 tools, free text": Constraints(TOOLS, "none"),
    "regular expression": Constraints(grammar=Grammar("regex", r"([A-Z][a-z]{2,9} [0-9]{1,4}(st|nd|rd|th), ){40}")),
}


def main(
    model: Annotated[Path | None, typer.Option(help="Model directory; the shipped micro if left out.")] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of each answer.")] = 200,
    answers: Annotated[int, typer.Option(min=1, help="Answers under each grammar.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; PyTorch's default if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Answer under each grammar in turn, and report medians a token."""
    if threads is not None:
        torch.set_num_threads(threads)
    directory = model or Registry().get(SHIPPED).directory
    config = EngineConfig(max_num_seqs=2, speculate=False)
    engine = Engine.from_directory(directory, config, dtype="float32", device="cpu")
    vocab_size = engine._vocab_size
    try:
        free = statistics.median(write(engine, Constraints(), new_tokens, seed)[0] for seed in range(answers))
        rows = []
        for name, constraints in CASES.items():
            compile_times = [compile_time(GrammarCompiler(engine.tokenizer, vocab_size), constraints) for _ in range(3)]
            steps, texts = zip(*(write(engine, constraints, new_tokens, seed) for seed in range(answers)), strict=True)
            seconds, forced = replay(engine, constraints, texts)
            peer = replay_peer(engine, constraints, texts)
            rows.append(
                {
                    "grammar": name,
                    "compile_ms": 1e3 * statistics.median(compile_times),
                    "tokens": len(seconds),
                    "forced": forced / len(seconds),
                    "mask_us": 1e6 * statistics.median(seconds),
                    "mask_us_p95": 1e6 * float(np.percentile(seconds, 95)),
                    "step_us": 1e6 * statistics.median(steps),
                    "xgrammar_mask_us": None if peer is None else 1e6 * statistics.median(peer),
                }
            )
    finally:
        engine.close()
    report = {
        "model": directory.name,
        "vocabulary": vocab_size,
        "threads": torch.get_num_threads(),
        "free_step_us": 1e6 * free,
        "rows": rows,
    }
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report)


def write(engine: Engine, constraints: Constraints, new_tokens: int, seed: int) -> tuple[float, list[int]]:
    """One answer: seconds a token after the first, and its tokens but the end of turn."""
    tokens: list[int] = []
    accept = Constraint.accept

    def keep(constraint: Constraint, token_id: int) -> None:
        tokens.append(token_id)
        accept(constraint, token_id)

    request = GenerationRequest(
        model="benchmark",
        prompt=PROMPT,
        tools=constraints.tools,
        tool_choice=constraints.tool_choice,
        grammar=constraints.grammar,
        sampling=SamplingParams(temperature=1.0, top_p=1.0, max_tokens=new_tokens, seed=seed, ignore_eos=True),
    )
    Constraint.accept = keep  # type: ignore[method-assign]
    try:
        *_, finished = engine.submit(request)
    finally:
        Constraint.accept = accept  # type: ignore[method-assign]
    if not isinstance(finished, Finished):
        raise RuntimeError("a generation ended without its last event")
    return (finished.latency - finished.time_to_first_token) / max(finished.usage.output_tokens - 1, 1), tokens


def replay(engine: Engine, constraints: Constraints, texts: Sequence[list[int]]) -> tuple[list[float], int]:
    """Seconds of the processor to rule out, and to go on from, each token; and how many tokens were forced."""
    vocab_size, stops = engine._vocab_size, engine.tokenizer.stop_token_ids
    grammar = GrammarCompiler(engine.tokenizer, vocab_size).compile(constraints)
    logits = torch.zeros(vocab_size)
    seconds = []
    forced = 0
    for tokens in texts:
        constraint = Constraint(grammar, vocab_size, stops)
        for token in tokens:
            start = time.thread_time()
            (allowed,) = constraint.allowed(())
            logits.masked_fill_(~torch.from_numpy(allowed), -torch.inf)
            constraint.accept(token)
            seconds.append(time.thread_time() - start)
            logits.zero_()
            forced += int(allowed.sum()) == 1
    return seconds, forced


def compile_time(compiler: GrammarCompiler, constraints: Constraints) -> float:
    """Seconds to compile a grammar that is not known yet, the tokenizer's own preparation left out."""
    compiler.compile(Constraints(grammar=Grammar("choice", ("x",))))
    start = time.thread_time()
    compiler.compile(constraints)
    return time.thread_time() - start


def replay_peer(engine: Engine, constraints: Constraints, texts: Sequence[list[int]]) -> list[float] | None:
    """The same by xgrammar; None where it is missing or refuses one of the tokens."""
    schema = constraints.grammar.source if constraints.grammar is not None else None
    if not isinstance(schema, dict):
        return None
    try:
        import xgrammar
    except ImportError:
        return None
    vocabulary = sorted(engine.tokenizer.vocabulary().items(), key=lambda entry: entry[1])
    info = xgrammar.TokenizerInfo(
        [token for token, _ in vocabulary],
        xgrammar.VocabType.BYTE_LEVEL,
        vocab_size=engine._vocab_size,
        stop_token_ids=sorted(engine.tokenizer.stop_token_ids),
    )
    compiled = xgrammar.GrammarCompiler(info).compile_json_schema(
        json.dumps(schema), any_whitespace=False, separators=(", ", ": ")
    )
    bitmask = xgrammar.allocate_token_bitmask(1, engine._vocab_size)
    logits = torch.zeros(1, engine._vocab_size)
    seconds = []
    for tokens in texts:
        matcher = xgrammar.GrammarMatcher(compiled)
        for token in tokens:
            start = time.thread_time()
            if matcher.fill_next_token_bitmask(bitmask):
                xgrammar.apply_token_bitmask_inplace(logits, bitmask)
            if not matcher.accept_token(token):
                return None
            seconds.append(time.thread_time() - start)
            logits.zero_()
    return seconds


def print_report(report: dict[str, Any]) -> None:
    """The report as a table, a row a grammar."""
    title = (
        f"{report['model']}, {report['vocabulary']} tokens, {report['threads']} threads; "
        f"{report['free_step_us']:.0f} us a token without a grammar"
    )
    table = Table(
        "grammar", "compile ms", "tokens", "forced", "mask us", "95th", "token us", "xgrammar us", title=title
    )
    for row in report["rows"]:
        peer = row["xgrammar_mask_us"]
        table.add_row(
            row["grammar"],
            f"{row['compile_ms']:.1f}",
            str(row["tokens"]),
            f"{row['forced']:.0%}",
            f"{row['mask_us']:.0f}",
            f"{row['mask_us_p95']:.0f}",
            f"{row['step_us']:.0f}",
            "-" if peer is None else f"{peer:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
