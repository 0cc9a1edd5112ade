"""Duplicates at known similarities."""

import subprocess
import sys

import pytest

from kilonova.core.errors import ConfigError
from kilonova.data.duplicates import ExactDuplicates, NearDuplicateConfig, NearDuplicates


def pair(jaccard: float, seed: int, size: int = 400) -> tuple[str, str]:
    """Two texts of `size` different words whose sets of words have the given Jaccard similarity."""
    shared = round(size * 2 * jaccard / (1 + jaccard))
    first = [f"a{seed}x{number}" for number in range(size)]
    return " ".join(first), " ".join(first[:shared] + [f"b{seed}x{number}" for number in range(size - shared)])


@pytest.mark.parametrize(("jaccard", "lowest", "highest"), [(0.5, 0, 0), (0.65, 0, 2), (0.9, 39, 40), (0.97, 40, 40)])
def test_near_duplicates_are_found_by_their_jaccard_similarity(jaccard: float, lowest: int, highest: int) -> None:
    index = NearDuplicates(NearDuplicateConfig(similarity=0.8, words=1))
    found = 0
    for seed in range(40):
        first, second = pair(jaccard, seed)
        assert index.original(first, 2 * seed) is None
        original = index.original(second, 2 * seed + 1)
        assert original in (None, 2 * seed)
        found += original is not None
    assert lowest <= found <= highest


def test_runs_of_words_see_their_order() -> None:
    first = pair(1.0, 0)[0]
    shuffled = " ".join(sorted(first.split()))
    assert NearDuplicates(NearDuplicateConfig(words=1)).original(first, 0) is None
    index = NearDuplicates(NearDuplicateConfig(words=5))
    index.original(first, 0)
    assert index.original(shuffled, 1) is None
    assert index.original(first.upper() + "!", 2) == 0


def test_texts_without_words_have_no_near_duplicates() -> None:
    index = NearDuplicates(NearDuplicateConfig())
    assert [index.original(text, number) for number, text in enumerate(["...", "!!", "one two", "one two"])] == [
        None,
        None,
        None,
        2,
    ]


def test_exact_duplicates_disregard_case_space_and_form() -> None:
    index = ExactDuplicates()
    texts = ["The  ﬁrst\nline", "the first line", "The first line.", " THE FIRST LINE "]
    assert [index.original(text, number) for number, text in enumerate(texts)] == [None, 0, None, 0]


def test_memory_does_not_grow_with_the_texts() -> None:
    # 100 documents of 90 kB: an index that kept their texts would hold 9 MB more.
    code = (
        "import resource, random\n"
        "from kilonova.data.duplicates import *\n"
        "exact, near = ExactDuplicates(), NearDuplicates(NearDuplicateConfig(words=1))\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "def add(number):\n"
        "    text = ' '.join(f'{number}x{word:06d}' for word in range(8000))\n"
        "    assert exact.original(text, number) is None and near.original(text, number) is None\n"
        "for number in range(10): add(number)\n"
        "before = peak()\n"
        "for number in range(10, 110): add(number)\n"
        "print(peak() - before)\n"
    )
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 4_000


def test_similarity_has_bounds() -> None:
    with pytest.raises(ConfigError, match="similarity"):
        NearDuplicateConfig(similarity=1.5)
