from __future__ import annotations

import time

import pytest

from kilonova.engine.speculation import MAX_DRAFT_TOKENS, PromptLookup, StepCost


def test_what_followed_before_is_guessed():
    lookup = PromptLookup()
    text = [1, 2, 3, 4, 5, 6, 7, 1, 2, 3]
    assert lookup.propose(text, 3)[0] == [4, 5, 6]
    assert lookup.propose(text, 8)[0] == [4, 5, 6, 7, 1, 2, 3]
    assert lookup.propose([*text, 4], 2)[0] == [5, 6]


def test_the_latest_place_wins_and_longer_matches_go_first():
    lookup = PromptLookup()
    assert lookup.propose([8, 2, 3, 10, 9, 2, 3, 20, 2, 3], 1)[0] == [20]
    assert lookup.propose([8, 2, 3, 10, 9, 2, 3, 20, 2, 3, 0, 8, 2, 3], 1)[0] == [10]


@pytest.mark.parametrize("text", [[], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4, 5]])
def test_nothing_repeats(text):
    assert PromptLookup().propose(text, 8) == ([], 0.0)


def test_incremental_guesses_equal_those_of_a_fresh_index():
    text = [(index * index) % 5 for index in range(60)]
    grown = PromptLookup()
    for end in range(1, len(text)):
        assert grown.propose(text[:end], 4)[0] == PromptLookup().propose(text[:end], 4)[0]


def test_the_estimate_follows_what_happens():
    lookup, text = PromptLookup(), [1, 2, 3, 4, 1, 2, 3]
    for _ in range(30):
        _, chance = lookup.propose(text, 1)
        lookup.learn([4])
    assert chance > 0.95
    for _ in range(30):
        _, chance = lookup.propose(text, 1)
        lookup.learn([5])
    assert chance < 0.05


def test_guesses_after_a_wrong_one_teach_nothing():
    lookup, text = PromptLookup(), [1, 2, 3, 4, 5, 6, 1, 2, 3]
    before = lookup.propose(text, 3)[1]
    lookup.learn([4, 0, 6])
    after = lookup.propose(text, 3)[1]
    # One right and one wrong: the third was never judged.
    rate = 0.15
    assert after == pytest.approx((before + rate * (1 - before)) * (1 - rate))


def test_drafts_pay_where_tokens_are_cheap_or_certain():
    memory_bound, compute_bound = StepCost(1.0, 0.01), StepCost(0.0, 1.0)
    assert memory_bound.draft_length(0.9, 1) == MAX_DRAFT_TOKENS
    assert memory_bound.draft_length(0.0, 1) == 0
    assert compute_bound.draft_length(0.99, 1) == 0
    between = StepCost(0.5, 0.5)
    assert [between.draft_length(chance, 1) for chance in (0.4, 0.6, 0.75, 0.9)] == [0, 1, 2, 6]
    assert between.draft_length(0.9, 8) < between.draft_length(0.9, 1)


def test_measured_cost():
    cost = StepCost.measure(lambda tokens: time.sleep(0.01 + 0.005 * tokens))
    assert 0.5 < cost.per_token / 0.005 < 2
    assert 0.3 < cost.fixed / 0.01 < 3
