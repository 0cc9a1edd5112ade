"""The next tokens of the requests whose logits are there."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from torch import Tensor

from kilonova.engine.request import Request
from kilonova.engine.runner import ModelRunner
from kilonova.engine.sampling import RawLogprob, logprobs


class Drawn(NamedTuple):
    """The next tokens of a request and their reports: None where none was asked for, -1 where logits are not finite."""

    request: Request
    token_ids: list[int | None]
    raws: list[RawLogprob | None]


def draw(runner: ModelRunner, logits: Tensor, rows: list[Request]) -> list[Drawn]:
    """The next tokens of the requests that the rows of `logits` belong to, in order.

    A request has one row, and one more for each of its guesses, which counts as long as the guesses before are right.
    """
    draws = [
        (request.seed, request.num_output_tokens + index)
        for request, group in itertools.groupby(rows)
        for index, _ in enumerate(group)
    ]
    token_ids = runner.sample(logits, [request.sampling for request in rows], draws)
    reports = _report(logits, rows, token_ids)
    result: list[Drawn] = []
    row = 0
    for request, group in itertools.groupby(rows):
        last = row + sum(1 for _ in group)
        count = 1
        for guess, token_id in zip(request.draft, token_ids[row : last - 1], strict=False):
            if guess != token_id:
                break
            count += 1
        result.append(Drawn(request, [*token_ids[row : row + count]], reports[row : row + count]))
        row = last
    return result


def _report(logits: Tensor, requests: list[Request], token_ids: list[int]) -> list[RawLogprob | None]:
    """Log-probabilities of the rows whose requests ask for them."""
    wanted = [row for row, request in enumerate(requests) if request.sampling.logprobs is not None]
    reports: list[RawLogprob | None] = [None] * len(requests)
    if not wanted:
        return reports
    tops = [requests[row].sampling.logprobs or 0 for row in wanted]
    raws = logprobs(logits[wanted], [max(token_ids[row], 0) for row in wanted], max(tops))
    for row, top, raw in zip(wanted, tops, raws, strict=True):
        reports[row] = raw._replace(top_ids=raw.top_ids[:top], top_logprobs=raw.top_logprobs[:top])
    return reports
