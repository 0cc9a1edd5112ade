"""How well a model knows which of two answers is better, and whose answers a reward model likes better."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from kilonova.core.device import choose_device, choose_dtype
from kilonova.core.errors import DataError
from kilonova.core.progress import ProgressReporter
from kilonova.core.types import IGNORE_INDEX, Message, TextBlock
from kilonova.data.preferences import EncodedPair, Messages, encode_pair, encode_pairs
from kilonova.engine.engine import Engine
from kilonova.evals.metrics import Estimate, bootstrap_mean
from kilonova.evals.run import generate
from kilonova.models.checkpoint import load_config, load_decoder
from kilonova.models.decoder.model import Decoder
from kilonova.models.reward import RewardModel, load_reward_model
from kilonova.nn.log_probs import token_log_probs
from kilonova.text.tokenizer import Tokenizer

_PAIRS_AT_ONCE = 16


@dataclass(frozen=True)
class PreferenceScore:
    """A share (or a mean) over `count` pairs of one kind, with its 95 % bootstrap interval."""

    metric: str
    kind: str
    value: float
    low: float
    high: float
    count: int


@dataclass
class PreferenceReport:
    """Scores of one model; `left_out` counts pairs that are identical, empty or longer than the context."""

    model: str
    pairs: str
    left_out: int = 0
    scores: list[PreferenceScore] = field(default_factory=list)

    def add(self, metric: str, kind: str, values: Sequence[float], seed: int = 0) -> None:
        estimate: Estimate = bootstrap_mean(values, seed)
        self.scores.append(PreferenceScore(metric, kind, estimate.value, estimate.low, estimate.high, len(values)))

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    def table(self) -> Table:
        """The scores for the terminal."""
        table = Table(title=f"{self.model} on {self.pairs}")
        for column in ("metric", "kind", "score", "95 % interval", "pairs"):
            table.add_column(column, justify="left" if column in ("metric", "kind") else "right")
        for score in self.scores:
            interval = f"{score.low:.3f} to {score.high:.3f}"
            table.add_row(score.metric, score.kind, f"{score.value:.3f}", interval, f"{score.count:,}")
        return table


def is_reward_model(directory: str | Path) -> bool:
    """Whether the checkpoint in `directory` scores conversations rather than continues them."""
    path = Path(directory) / "config.json"
    if not path.exists():
        return False
    architectures = json.loads(path.read_text(encoding="utf-8")).get("architectures") or [""]
    return str(architectures[0]).endswith("ForSequenceClassification")


def read_pairs(
    path: str | Path, tokenizer: Tokenizer, max_tokens: int, limit: int | None = None
) -> tuple[list[EncodedPair], int]:
    """The pairs of a file in TRL's conversational format (see `tokenize_pairs`), and how many were left out."""
    everything = list(islice(encode_pairs(path, tokenizer), limit))
    found = [p for p in everything if p.fault is None and max(len(p.chosen), len(p.rejected)) <= max_tokens]
    if not found:
        raise DataError(f"{path}: no pair to measure")
    return found, len(everything) - len(found)


@torch.no_grad()
def pair_log_probs(model: Decoder, pairs: Sequence[EncodedPair]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of both completions of each pair in nats, and their tokens, float32 `[N, 2]`, chosen first."""
    sums, counts = [], []
    with ProgressReporter("log-probabilities: pairs", len(pairs)) as progress:
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            group = [(pair.prompt_length, ids) for pair in pairs[start : start + _PAIRS_AT_ONCE] for ids in _both(pair)]
            tokens, _ = _padded([ids for _, ids in group], model.lm_head.weight.device)
            labels = torch.full_like(tokens, IGNORE_INDEX)
            for row, (prompt_length, ids) in enumerate(group):
                labels[row, prompt_length - 1 : len(ids) - 1] = tokens[row, prompt_length : len(ids)]
            hidden = model.hidden_states(tokens)
            values = token_log_probs(hidden.flatten(0, 1), model.lm_head.weight, labels.flatten())
            sums.append(values.view_as(labels).sum(dim=1).view(-1, 2).cpu())
            counts.append((labels != IGNORE_INDEX).sum(dim=1).view(-1, 2).float().cpu())
            progress.update(start + len(group) // 2)
    return torch.cat(sums), torch.cat(counts)


@torch.no_grad()
def rewards(model: RewardModel, documents: Sequence[Sequence[int]]) -> Tensor:
    """The reward of each conversation, float32 `[N]`."""
    found = []
    with ProgressReporter("rewards: conversations", len(documents)) as progress:
        for start in range(0, len(documents), 2 * _PAIRS_AT_ONCE):
            tokens, ends = _padded(documents[start : start + 2 * _PAIRS_AT_ONCE], model.score.weight.device)
            found.append(model(tokens)[torch.arange(len(ends)), ends].float().cpu())
            progress.update(start + len(ends))
    return torch.cat(found)


def measure(directory: str | Path, pairs_path: str | Path, limit: int | None = None) -> PreferenceReport:
    """How often a model prefers the chosen answer, by kind of pair, beside the rule that the longer one is better.

    A reward model prefers what it scores higher (`reward_accuracy`); a language model what it finds likelier, as a
    whole (`logps_accuracy`) and a token (`mean_logps_accuracy`).
    """
    tokenizer = Tokenizer.from_directory(directory)
    device = choose_device("auto")
    dtype = choose_dtype("auto", device)
    longest = load_config(directory).max_position_embeddings
    pairs, left_out = read_pairs(pairs_path, tokenizer, longest, limit)
    if is_reward_model(directory):
        documents = [tokens for pair in pairs for tokens in _both(pair)]
        metrics = {"reward_accuracy": rewards(load_reward_model(directory, dtype, device), documents).view(-1, 2)}
    else:
        sums, counts = pair_log_probs(load_decoder(directory, dtype, device), pairs)
        metrics = {"logps_accuracy": sums, "mean_logps_accuracy": sums / counts}
    metrics["longer_is_better"] = torch.tensor([[len(pair.chosen), len(pair.rejected)] for pair in pairs])
    report = PreferenceReport(str(directory), str(pairs_path), left_out)
    for metric, values in metrics.items():
        _add_by_kind(report, metric, pairs, _wins(values[:, 0], values[:, 1]))
    return report


def win_rate(
    directory: str | Path,
    against: str | Path,
    reward_directory: str | Path,
    pairs_path: str | Path,
    *,
    limit: int | None = None,
    max_tokens: int = 128,
) -> PreferenceReport:
    """How often a reward model scores a model's greedy answers above those of another model (ties count half).

    Also the mean difference of the rewards, and the mean lengths of both models' answers in characters.
    """
    tokenizer = Tokenizer.from_directory(reward_directory)
    device = choose_device("auto")
    scorer = load_reward_model(reward_directory, choose_dtype("auto", device), device)
    room = scorer.config.max_position_embeddings - max_tokens
    pairs, left_out = read_pairs(pairs_path, tokenizer, room, limit)
    prompts = [pair.prompt for pair in pairs]
    answers = []
    for path in (directory, against):
        model = GreedyAnswers(path, max_tokens)
        answers.append(model(prompts))
        model.close()
    scores = []
    for given in answers:
        documents = [
            encode_pair(tokenizer, prompt, _answer(text), _answer(text))[0]
            for prompt, text in zip(prompts, given, strict=True)
        ]
        scores.append(rewards(scorer, documents))
    report = PreferenceReport(f"{directory} against {against}", str(pairs_path), left_out)
    _add_by_kind(report, "win_rate", pairs, _wins(*scores))
    report.add("reward_difference", "all", (scores[0] - scores[1]).tolist())
    for name, given in zip(("characters", "characters_against"), answers, strict=True):
        report.add(name, "all", [float(len(text or "")) for text in given])
    return report


class GreedyAnswers:
    """Gives a model's likeliest answer to each conversation, None where one does not fit; the model stays loaded."""

    def __init__(self, directory: str | Path, max_tokens: int) -> None:
        self._engine = Engine.from_directory(directory)
        self._max_tokens = max_tokens

    def __call__(self, prompts: Sequence[Messages]) -> list[str | None]:
        messages = [
            tuple(Message(turn["role"], (TextBlock(str(turn.get("content") or "")),)) for turn in prompt)
            for prompt in prompts
        ]
        return generate(self._engine, messages, [()] * len(messages), self._max_tokens)

    def close(self) -> None:
        self._engine.close()


def _add_by_kind(report: PreferenceReport, metric: str, pairs: Sequence[EncodedPair], wins: Iterable[float]) -> None:
    by_kind: dict[str, list[float]] = defaultdict(list)
    for pair, win in zip(pairs, wins, strict=True):
        by_kind[str(pair.row.get("kind", "pairs"))].append(win)
        by_kind["all"].append(win)
    for kind in sorted(by_kind, key=lambda kind: (kind != "all", kind)):
        report.add(metric, kind, by_kind[kind])


def _wins(first: Tensor, second: Tensor) -> list[float]:
    return ((first > second).float() + 0.5 * (first == second).float()).tolist()


def _answer(text: str | None) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text or ""}]


def _both(pair: EncodedPair) -> tuple[list[int], list[int]]:
    return pair.chosen, pair.rejected


def _padded(documents: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids `[N, longest]`, padded on the right, which no earlier position sees, and the last position of each."""
    tokens = torch.zeros(len(documents), max(map(len, documents)), dtype=torch.long)
    for row, document in enumerate(documents):
        tokens[row, : len(document)] = torch.tensor(document)
    return tokens.to(device), torch.tensor([len(document) - 1 for document in documents]).to(device)
