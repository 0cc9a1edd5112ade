"""Batches made ahead."""

from __future__ import annotations

import threading
import time

import pytest

from kilonova.train.pictures.ahead import Ahead


def test_steps_are_made_once_in_order_and_the_next_one_beforehand() -> None:
    made: list[tuple[int, int]] = []
    ahead = Ahead(lambda step: made.append((step, threading.get_ident())) or step * 10)
    assert [ahead(step) for step in (0, 1, 2)] == [0, 10, 20]
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert [step for step, _ in made] == [0, 1, 2, 3]
    assert {thread for _, thread in made} != {threading.get_ident()}
    # A run that was rewound asks for other steps.
    assert [ahead(step) for step in (1, 7)] == [10, 70]


def test_errors_come_where_a_step_is_asked_for() -> None:
    def make(step: int) -> int:
        if step == 1:
            raise ValueError("step 1")
        return step

    ahead = Ahead(make)
    assert ahead(0) == 0
    with pytest.raises(ValueError, match="step 1"):
        ahead(1)
