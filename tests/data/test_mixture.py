"""Mixtures: each source's share, and an order that is a function of the seed and the place alone."""

from collections import Counter

import numpy as np
import pytest

from kilonova.core.errors import ConfigError
from kilonova.data.mixture import MixedRows, MixtureSampler, build_rows, build_sampler, mixture_probabilities, permuted
from kilonova.data.packing import ConcatenatedRows, EpochSampler, PackedRows
from kilonova.data.tokens import TokenizedSource


def source(length: int, first: int = 0, document: int = 5) -> TokenizedSource:
    offsets = np.append(np.arange(0, length, document), length)
    return TokenizedSource(np.arange(first, first + length, dtype=np.uint16), np.ones(length, bool), offsets, 0)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1.0, [0.8, 0.2]), (2.0, [2 / 3, 1 / 3]), (1e9, [0.5, 0.5]), (1 / 3, [64 / 65, 1 / 65])],
)
def test_probabilities_are_powers_of_the_weighted_sizes(temperature: float, expected: list[float]) -> None:
    assert mixture_probabilities([200, 100], [2.0, 1.0], temperature) == pytest.approx(expected, abs=1e-6)


def test_temperature_must_be_positive() -> None:
    with pytest.raises(ConfigError, match=r"data\.temperature"):
        mixture_probabilities([1], [1.0], 0.0)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000])
def test_permutation_reaches_every_place_once(size: int) -> None:
    assert sorted(permuted(index, size, "key") for index in range(size)) == list(range(size))


def test_permutations_look_random() -> None:
    size, keys = 8, 4000
    landed = np.zeros((size, size))
    for key in range(keys):
        for index in range(size):
            landed[index, permuted(index, size, str(key))] += 1
    # Places exclude each other, which the factor 7 / 8 corrects; with 7 * 7 degrees of freedom a chi-square is above
    # 85.4 once in a thousand.
    assert 7 / 8 * ((landed - keys / size) ** 2 / (keys / size)).sum() < 85.4
    order = [permuted(index, 1000, "order") for index in range(1000)]
    assert abs(np.corrcoef(np.arange(1000), order)[0, 1]) < 0.1


def test_shares_are_within_binomial_noise() -> None:
    num_rows, probabilities = [50, 700, 9], np.array([0.3, 0.6, 0.1])
    sampler = MixtureSampler(num_rows, probabilities, batch_size=100, seed=1)
    drawn = [index for step in range(200) for index in sampler.indices(step)]
    counts = np.histogram(drawn, [0, 50, 750, 759])[0]
    expected = probabilities * len(drawn)
    assert (abs(counts - expected) < 4 * np.sqrt(expected * (1 - probabilities))).all()


def test_passes_over_a_source_are_complete_and_differ() -> None:
    sampler = MixtureSampler([10, 30], np.array([0.5, 0.5]), batch_size=200, seed=0)
    first = [index for index in sampler.indices(0) if index < 10]
    passes = [first[start : start + 10] for start in range(0, len(first) - 9, 10)]
    assert len(passes) > 5
    assert all(sorted(each) == list(range(10)) for each in passes)
    assert len({tuple(each) for each in passes}) == len(passes)


def test_any_step_can_be_reached_at_once() -> None:
    def fresh() -> MixtureSampler:
        return MixtureSampler([1000, 37], np.array([0.9, 0.1]), batch_size=4096, seed=5)

    walked = fresh()
    steps = {step: walked.indices(step) for step in range(14, 18)}
    for step in (16, 14):
        assert fresh().indices(step) == steps[step]
        assert walked.indices(step) == steps[step]
    assert fresh().indices(10**12) == walked.indices(10**12)


def test_order_does_not_depend_on_how_the_rows_are_divided_into_steps() -> None:
    large = MixtureSampler([50, 70], np.array([0.5, 0.5]), batch_size=12, seed=2)
    small = MixtureSampler([50, 70], np.array([0.5, 0.5]), batch_size=3, seed=2)
    assert large.indices(7) == [index for step in range(28, 32) for index in small.indices(step)]
    assert MixtureSampler([50, 70], np.array([0.5, 0.5]), 12, seed=3).indices(7) != large.indices(7)


def test_a_source_of_vanishing_probability_is_still_seen() -> None:
    sampler = MixtureSampler([5, 5], np.array([1 - 1e-12, 1e-12]), batch_size=2**16, seed=0)
    assert sum(index >= 5 for index in sampler.indices(0)) == 1


@pytest.mark.parametrize("whole_documents", [True, False])
def test_without_temperature_rows_and_order_stay_as_they_were(whole_documents: bool) -> None:
    sources, weights = [source(100), source(60, first=1000)], [0.5, 2.0]
    rows = build_rows(sources, weights, 8, 3, whole_documents=whole_documents)
    before = (PackedRows if whole_documents else ConcatenatedRows)(sources, weights, 8, 3)
    assert type(rows) is type(before)
    assert all(
        np.array_equal(a, b) for i in range(len(before)) for a, b in zip(rows.row(i), before.row(i), strict=True)
    )
    sampler = build_sampler(rows, 4, 3)
    assert [sampler.indices(step) for step in range(20)] == [
        EpochSampler(len(before), 4, 3).indices(step) for step in range(20)
    ]


def test_epoch_orders_are_pinned() -> None:
    # Runs in progress resume by these orders.
    assert EpochSampler(10, 4, 3).indices(0) == np.random.default_rng([3, 0]).permutation(10)[:4].tolist()
    order = np.random.default_rng(7).permutation(12)
    rows = ConcatenatedRows([source(49)], [1.0], 4, seed=7)
    assert [int(rows.row(index)[0][0]) for index in range(12)] == (4 * order).tolist()


@pytest.mark.parametrize("whole_documents", [True, False])
def test_mixed_rows_hold_the_rows_of_every_source(whole_documents: bool) -> None:
    sources = [source(100), source(60, first=1000)]
    rows = build_rows(sources, [1.0, 1.0], 8, 0, whole_documents=whole_documents, temperature=2.0)
    assert isinstance(rows, MixedRows)
    seen: Counter[int] = Counter()
    for index in range(len(rows)):
        tokens, _, documents = rows.row(index)
        assert len({int(token) // 1000 for token in tokens[documents >= 0]}) == 1
        seen.update(tokens[documents >= 0][: 8 if not whole_documents else None].tolist())
    assert set(seen.values()) == {1}
    # Windows leave out the rest of a source that does not fill one.
    assert len(seen) == (160 if whole_documents else 96 + 56)
    sampler = build_sampler(rows, 512, 0)
    indices = sampler.indices(0)
    assert max(indices) < len(rows)
    share = sum(index < rows.num_rows[0] for index in indices) / 512
    assert share == pytest.approx(rows.probabilities[0], abs=0.09)
