"""The next tokens of the requests whose logits are there."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from kilonova.core.errors import EngineError
from kilonova.engine.request import Request
from kilonova.engine.runner import ModelRunner
from kilonova.engine.sampling import RawLogprob, logprobs


class Drawn(NamedTuple):
    """The next tokens of a request and their reports: None where none was asked for, -1 where logits are not finite.

    Where its grammar failed, there are none but the error.
    """

    request: Request
    token_ids: list[int | None]
    raws: list[RawLogprob | None]
    error: EngineError | None = None


def draw(runner: ModelRunner, logits: Tensor, rows: list[Request]) -> list[Drawn]:
    """The next tokens of the requests that the rows of `logits` belong to, in order; may change `logits`.

    A request has one row, and one more for each of its guesses, which counts as long as the guesses before are right.
    """
    groups = [(request, sum(1 for _ in group)) for request, group in itertools.groupby(rows)]
    draws = [(request.seed, request.num_output_tokens + index) for request, count in groups for index in range(count)]
    # Reports are of the logits as the model gave them.
    reported = [row for row, request in enumerate(rows) if request.sampling.logprobs is not None]
    originals = logits[reported] if reported else logits
    errors: dict[int, EngineError] = {}
    row = 0
    for request, count in groups:
        try:
            edit(logits[row : row + count], request)
        except EngineError as error:
            errors[row] = error
        row += count
    token_ids = runner.sample(logits, [request.sampling for request in rows], draws)
    reports = _report(originals, reported, rows, token_ids)
    result: list[Drawn] = []
    row = 0
    for request, num_rows in groups:
        count = 1
        for guess, token_id in zip(request.draft, token_ids[row : row + num_rows - 1], strict=False):
            if guess != token_id:
                break
            count += 1
        if row in errors:
            result.append(Drawn(request, [], [], errors[row]))
        else:
            result.append(Drawn(request, [*token_ids[row : row + count]], reports[row : row + count]))
        row += num_rows
    return result


def edit(logits: Tensor, request: Request) -> None:
    """Change the rows of a request as its grammar, penalties and bias have it. Raises EngineError."""
    guesses = request.draft[: len(logits) - 1]
    if request.constraint is not None:
        for one, allowed in zip(logits, request.constraint.allowed(guesses), strict=False):
            one.masked_fill_(~torch.from_numpy(allowed).to(logits.device), -torch.inf)
    if request.penalties is not None:
        request.penalties.apply(logits, request.token_ids, guesses)


def _report(
    originals: Tensor, rows: list[int], requests: list[Request], token_ids: list[int]
) -> list[RawLogprob | None]:
    """Log-probabilities of the tokens drawn in `rows`, whose logits are `originals`; None for the others."""
    reports: list[RawLogprob | None] = [None] * len(requests)
    if not rows:
        return reports
    tops = [requests[row].sampling.logprobs or 0 for row in rows]
    raws = logprobs(originals, [max(token_ids[row], 0) for row in rows], max(tops))
    for row, top, raw in zip(rows, tops, raws, strict=True):
        reports[row] = raw._replace(top_ids=raw.top_ids[:top], top_logprobs=raw.top_logprobs[:top])
    return reports
