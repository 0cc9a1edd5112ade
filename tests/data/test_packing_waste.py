"""What packing costs, against plain counting over the rows."""

import numpy as np
import pytest

from kilonova.data.mixture import build_rows
from kilonova.data.packing import ConcatenatedRows, PackedRows
from kilonova.data.tokens import TokenizedSource


def tokenized(lengths: list[int]) -> TokenizedSource:
    number = sum(lengths)
    return TokenizedSource(np.ones(number, np.uint16), np.ones(number, bool), np.cumsum([0, *lengths]), 0)


def test_waste_of_whole_documents() -> None:
    lengths = [*np.random.default_rng(0).integers(1, 40, 200).tolist(), 50, 70]
    rows = PackedRows([tokenized(lengths)], [1.0], 31, seed=0)
    empty = sum(int((rows.row(index)[2] < 0).sum()) for index in range(len(rows)))
    waste = rows.waste
    assert (waste.positions, waste.empty) == (32 * len(rows), empty)
    assert waste.empty_share == empty / waste.positions > 0
    assert waste.documents == 202
    assert waste.too_long == sum(length > 32 for length in lengths) == rows.num_too_long
    assert waste.cut == 0


def test_waste_of_concatenated_documents() -> None:
    lengths = [3, 5, 8, 1, 20, 4, 0, 7]
    rows = ConcatenatedRows([tokenized(lengths)], [1.0], 8, seed=0)
    ends = np.cumsum(lengths)
    cut = sum(
        len({position // 8 for position in range(end - length, end)}) > 1
        for end, length in zip(ends, lengths, strict=True)
    )
    waste = rows.waste
    assert (waste.empty, waste.too_long, waste.cut, waste.documents) == (0, 0, cut, 8)
    assert waste.positions == 8 * len(rows)
    assert cut == 2


@pytest.mark.parametrize("whole_documents", [True, False])
def test_waste_of_a_mixture_is_the_sum_of_its_sources(whole_documents: bool) -> None:
    sources = [tokenized([5, 9, 30]), tokenized([8, 8, 8, 3])]
    mixed = build_rows(sources, [1, 1], 8, 0, whole_documents=whole_documents, temperature=1.0).waste
    alone = [build_rows([s], [1], 8, 0, whole_documents=whole_documents).waste for s in sources]
    for name in ("positions", "empty", "documents", "too_long", "cut"):
        assert getattr(mixed, name) == sum(getattr(waste, name) for waste in alone)
