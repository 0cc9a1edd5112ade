import random

import pytest

from kilonova.engine.prompt_share import PromptShare


def settle(share: PromptShare, alone: float, fixed: float, per_token: float, noise: float = 0.0) -> list[float]:
    """Steps' slowdowns over those without a prompt, once there were enough to settle."""
    random_ = random.Random(0)
    slowdowns = []
    for step in range(60):
        share.observe(0, alone * random_.uniform(1, 1 + noise))
        tokens = share.tokens
        seconds = (alone + fixed + per_token * tokens) * random_.uniform(1, 1 + noise)
        share.observe(tokens, seconds)
        if step >= 20:
            slowdowns.append(seconds / alone)
    return slowdowns


@pytest.mark.parametrize(
    ("alone", "fixed", "per_token"), [(0.1, 0.0, 0.001), (0.1, 0.04, 0.0005), (0.003, 0.0, 0.00005)]
)
def test_a_step_with_a_prompt_takes_a_little_longer(alone, fixed, per_token):
    slowdowns = settle(PromptShare(256), alone, fixed, per_token)
    assert slowdowns == pytest.approx([1.4] * 40, rel=0.1)
    slowdowns = settle(PromptShare(256), alone, fixed, per_token, noise=0.3)
    assert 1.2 < sum(slowdowns) / len(slowdowns) < 1.9


def test_bounds():
    slow, fast = PromptShare(256), PromptShare(256)
    settle(slow, 0.001, 0.1, 0.01)
    settle(fast, 1.0, 0.0, 1e-6)
    assert (slow.tokens, fast.tokens) == (8, 256)


def test_nothing_is_assumed_before_it_was_seen():
    share = PromptShare(256)
    share.observe(256, 100.0)
    assert share.tokens == 32
    share.observe(0, 1.0)
    assert share.tokens == 32


def test_the_end_of_a_prompt_says_little():
    share = PromptShare(256)
    share.observe(0, 0.1)
    share.observe(5, 0.3)
    assert share.tokens == 32
