"""Speed of generation beside `transformers.generate`, on the same weights, dtype and threads."""

from __future__ import annotations

import contextlib
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM

from kilonova.core.types import Finished, GenerationRequest, SamplingParams, TextDelta
from kilonova.engine.config import EngineConfig
from kilonova.engine.engine import Engine
from kilonova.models.checkpoint import load_decoder, save_decoder
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.models.registry import Registry
from kilonova.text.bpe import save_tokenizer, train_tokenizer
from kilonova.text.tokenizer import Tokenizer

SHIPPED = "micro"
RANDOM_SHAPE = {
    "model_type": "qwen3",
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,
}
MEASURES = {
    "first_token_ms": "time to first token, ms",
    "inter_token_ms": "time between tokens, ms",
    "tokens_per_s": "tokens/s, all streams",
}

Measurement = dict[str, float]


def main(
    model: Annotated[Path | None, typer.Option(help="Model directory; the shipped micro, else a random one.")] = None,
    streams: Annotated[list[int] | None, typer.Option(help="Concurrent requests; may be given again.")] = None,
    more_streams: Annotated[list[int] | None, typer.Argument(help="Further numbers of concurrent requests.")] = None,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens to generate for each request.")] = 128,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens in each prompt.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds to take the median of.")] = 5,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads for both; PyTorch's default if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Generate greedily with both, end of turn switched off and without guesses, and report medians and their ratio.

    Both generate once unmeasured first, and the share of tokens on which they agree is reported.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    numbers = [*(streams or ()), *(more_streams or ())] or [1, 8]
    with model_directory(model) as directory:
        runners = Runners(directory, getattr(torch, dtype))
        report: dict[str, Any] = {
            "model": directory.name,
            "parameters": runners.parameters,
            "dtype": dtype,
            "threads": torch.get_num_threads(),
            "prompt_tokens": prompt_tokens,
            "new_tokens": new_tokens,
            "rounds": rounds,
            "streams": [runners.compare(number, prompt_tokens, new_tokens, rounds) for number in numbers],
        }
        runners.engine.close()
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report)


@contextlib.contextmanager
def model_directory(model: Path | None) -> Iterator[Path]:
    """The directory given, or the shipped model's, or that of a random model made for this run."""
    shipped = [entry for entry in Registry().entries() if SHIPPED in (entry.name, *entry.aliases)]
    if model is not None or shipped:
        yield model or shipped[0].directory
        return
    with tempfile.TemporaryDirectory() as parent:
        directory = Path(parent) / "random-micro"
        decoder = Decoder(DecoderConfig.from_hf(RANDOM_SHAPE))
        decoder.init_weights(torch.Generator().manual_seed(0))
        save_decoder(decoder, directory)
        save_tokenizer(train_tokenizer([Path(__file__).read_text(encoding="utf-8")], 400), directory, 4096)
        yield directory


class Runners:
    """One engine and one `transformers` model over the same weights."""

    def __init__(self, directory: Path, dtype: torch.dtype) -> None:
        tokenizer = Tokenizer.from_directory(directory)
        tokenizer.stop_token_ids = frozenset()
        decoder = load_decoder(directory, dtype=dtype)
        self.parameters = decoder.num_parameters()
        self.vocab_size = decoder.config.vocab_size
        self.engine = Engine(decoder, tokenizer, EngineConfig(speculate=False))
        self.reference: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
        self.reference.generation_config.eos_token_id = None
        self.reference.generation_config.pad_token_id = 0

    def compare(self, streams: int, prompt_tokens: int, new_tokens: int, rounds: int) -> dict[str, Any]:
        """Medians of both over interleaved rounds, and how many times better this engine is."""
        generator = torch.Generator().manual_seed(1)
        prompts = torch.randint(self.vocab_size, (streams, prompt_tokens), generator=generator)
        ours, theirs = self.generate_tokens(prompts, new_tokens)
        measured: dict[str, list[Measurement]] = {"kilonova": [], "transformers": []}
        for _ in range(rounds):
            gc.collect()
            measured["kilonova"].append(self.run_engine(prompts, new_tokens))
            measured["transformers"].append(self.run_reference(prompts, new_tokens))
        medians = {
            name: {key: statistics.median(one[key] for one in results) for key in MEASURES}
            for name, results in measured.items()
        }
        ratio = {key: medians["transformers"][key] / medians["kilonova"][key] for key in MEASURES}
        ratio["tokens_per_s"] = 1 / ratio["tokens_per_s"]
        agreement = (ours == theirs).float().mean().item()
        return {"streams": streams, **medians, "ratio": ratio, "same_tokens": agreement, "rounds": measured}

    def generate_tokens(self, prompts: torch.Tensor, new_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens `[streams, new_tokens]` that both choose, unmeasured."""
        generations = [self.engine.submit(greedy(prompt, new_tokens, logprobs=0)) for prompt in prompts]
        ours = [
            [entry.token_id for event in generation if isinstance(event, TextDelta) for entry in event.logprobs]
            for generation in generations
        ]
        theirs = self.reference.generate(prompts, do_sample=False, max_new_tokens=new_tokens)
        return torch.tensor(ours), theirs[:, prompts.shape[1] :]

    def run_engine(self, prompts: torch.Tensor, new_tokens: int) -> Measurement:
        """One timed round of the engine, all streams submitted together; nothing is left from earlier rounds."""
        self.engine.reset_prefix_cache()
        started = time.perf_counter()
        generations = [self.engine.submit(greedy(prompt, new_tokens)) for prompt in prompts]
        last = [event for generation in generations for event in generation if isinstance(event, Finished)]
        wall = time.perf_counter() - started
        first = statistics.median(finished.time_to_first_token for finished in last)
        later = statistics.median(finished.latency - finished.time_to_first_token for finished in last)
        return to_measurement(first, later, wall, len(prompts), new_tokens)

    def run_reference(self, prompts: torch.Tensor, new_tokens: int) -> Measurement:
        """One timed round of `transformers.generate` over one batch of equal lengths."""
        times: list[float] = []

        def note_time(input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
            times.append(time.perf_counter())
            return torch.zeros(len(input_ids), dtype=torch.bool)

        started = time.perf_counter()
        self.reference.generate(
            prompts, do_sample=False, use_cache=True, max_new_tokens=new_tokens, stopping_criteria=[note_time]
        )
        wall = time.perf_counter() - started
        return to_measurement(times[0] - started, times[-1] - times[0], wall, len(prompts), new_tokens)


def greedy(prompt: torch.Tensor, new_tokens: int, logprobs: int | None = None) -> GenerationRequest:
    """A request for exactly `new_tokens` tokens after a prompt of token ids."""
    sampling = SamplingParams(temperature=0, max_tokens=new_tokens, logprobs=logprobs)
    return GenerationRequest(model="benchmark", prompt=tuple(prompt.tolist()), sampling=sampling)


def to_measurement(first: float, later: float, wall: float, streams: int, new_tokens: int) -> Measurement:
    """The measures of a round, from seconds to the first token, from it to the last, and in all."""
    return {
        "first_token_ms": first * 1000,
        "inter_token_ms": later * 1000 / (new_tokens - 1),
        "tokens_per_s": streams * new_tokens / wall,
    }


def print_report(report: dict[str, Any]) -> None:
    """The report as a table."""
    title = (
        f"{report['model']}: {report['parameters'] / 1e6:.1f} M parameters, {report['dtype']}, "
        f"{report['threads']} threads, {report['prompt_tokens']} + {report['new_tokens']} tokens, "
        f"median of {report['rounds']} rounds"
    )
    table = Table("streams", "measure", "kilonova", "transformers", "times better", "same tokens", title=title)
    for row in report["streams"]:
        for key, label in MEASURES.items():
            values = (row["kilonova"][key], row["transformers"][key], row["ratio"][key])
            same = f"{row['same_tokens']:.1%}"
            table.add_row(str(row["streams"]), label, *(f"{value:.2f}" for value in values), same)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
