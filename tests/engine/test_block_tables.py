import random

import pytest

from kilonova.engine.block_pool import NULL_BLOCK, block_hash
from kilonova.engine.block_tables import BLOCK_SIZE, BlockTables, GroupSize


def make_tables(*windows: int | None, num_blocks: int = 100, num_slots: int = 4, max_length: int = 800) -> BlockTables:
    return BlockTables([GroupSize(window, num_blocks) for window in windows], num_slots, max_length)


def names(count: int, first: int = 0) -> list[bytes]:
    result: list[bytes] = []
    for index in range(count):
        result.append(block_hash(result[-1] if result else b"root", [first, index]))
    return result


def read(tables: BlockTables, slot: int, tokens: int, start: int = 0, chunk: int = 40, first: int = 0) -> None:
    """Compute a sequence of `tokens` tokens in chunks and publish it."""
    while start < tokens:
        length = min(chunk, tokens - start)
        assert tables.reserve(slot, start, length)
        start += length
        tables.publish(slot, names(start // BLOCK_SIZE, first), start)


def test_a_sequence_holds_one_block_for_sixteen_tokens():
    tables = make_tables(None)
    assert tables.reserve(0, 0, 33)
    (group,) = tables.groups
    row = group.table[0]
    assert (row != NULL_BLOCK).sum() == 3
    assert tables.num_tokens == 33
    for position in range(33, 48):
        assert tables.reserve(0, position, 1)
    assert (row != NULL_BLOCK).sum() == 3
    tables.reserve(0, 48, 1)
    assert (row != NULL_BLOCK).sum() == 4
    tables.release(0)
    assert tables.is_whole()


@pytest.mark.parametrize("window", [1, 7, 16, 17, 40])
def test_blocks_behind_the_window_are_free(window):
    tables = make_tables(window, None)
    windowed, full = tables.groups
    read(tables, 0, 100)
    for position in range(100, 400):
        assert tables.reserve(0, position, 1)
        held = windowed.table[0].nonzero()[0]
        assert held[0] == max(0, position - window + 1) // BLOCK_SIZE
        assert held[-1] == position // BLOCK_SIZE
        assert windowed.pool.stats().used == len(held) <= window // BLOCK_SIZE + 2
        assert full.pool.stats().used == position // BLOCK_SIZE + 1
    tables.release(0)
    assert tables.is_whole()


def test_reserving_is_all_or_nothing_over_groups():
    tables = BlockTables([GroupSize(None, 10), GroupSize(1000, 4)], 2, 800)
    assert not tables.reserve(0, 0, 64)
    assert tables.is_whole()
    assert tables.room(0, 0, 64) == 48
    assert tables.room(0, 0, 64, spare=2) == 16
    assert tables.reserve(0, 0, 40)
    assert tables.room(0, 40, 64) == 8
    assert tables.room(1, 0, 10) == 0
    assert not tables.reserve(1, 0, 1)


def test_nothing_goes_beyond_the_longest_sequence():
    tables = make_tables(None, max_length=40)
    assert tables.reserve(0, 0, 40)
    assert not tables.reserve(0, 40, 1)


def test_a_prefix_is_found_block_by_block():
    tables = make_tables(None)
    read(tables, 0, 100)
    assert tables.take_prefix(1, names(4)) == 64
    assert (tables.groups[0].table[1, :4] == tables.groups[0].table[0, :4]).all()
    assert tables.take_prefix(2, names(20)) == 96
    assert tables.take_prefix(3, names(6, first=1)) == 0
    assert tables.groups[0].pool.stats().used == 7
    for slot in range(4):
        tables.release(slot)
    assert tables.is_whole()
    assert tables.stats().cached == 6


def test_another_continuation_of_a_prefix_leaves_it_alone():
    tables = make_tables(None)
    read(tables, 0, 64)
    tables.take_prefix(1, names(3))
    tables.reserve(1, 48, 40)
    first, second = tables.groups[0].table[0].tolist(), tables.groups[0].table[1].tolist()
    assert first[:3] == second[:3]
    assert not set(second[3:]) & set(first) - {NULL_BLOCK}


def test_the_end_of_a_sequence_is_evicted_first():
    tables = make_tables(None, num_blocks=8)
    read(tables, 0, 7 * BLOCK_SIZE)
    tables.release(0)
    assert tables.reserve(1, 0, 3 * BLOCK_SIZE)
    assert tables.take_prefix(2, names(7)) == 4 * BLOCK_SIZE


@pytest.mark.parametrize("windows", [(None,), (20,), (1,), (None, 20), (40, None)])
@pytest.mark.parametrize("seed", range(4))
def test_the_longest_prefix_is_the_longest_that_every_group_can_go_on_from(windows, seed):
    """Against the definition, where any blocks may have been evicted."""
    random_ = random.Random(seed)
    tables = make_tables(*windows)
    all_names = names(12)
    for group in tables.groups:
        for name in all_names:
            if random_.random() < 0.7:
                (block,) = group.pool.allocate(1)
                group.pool.publish(block, name)
                group.pool.release(block)

    def is_usable(count: int) -> bool:
        return all(
            group.pool.find(all_names[index]) is not None
            for group in tables.groups
            for index in range(count)
            if group.window is None or (index + 1) * BLOCK_SIZE > count * BLOCK_SIZE - group.window + 1
        )

    expected = max(count for count in range(13) if is_usable(count))
    assert tables.take_prefix(0, all_names) == expected * BLOCK_SIZE
    tables.release(0)
    assert tables.is_whole()


def test_a_pinned_prefix_keeps_what_its_continuation_needs():
    tables = make_tables(None, 20, num_blocks=30)
    read(tables, 0, 160)
    tables.pin(names(10), 60)
    tables.release(0)
    assert [group.pool.stats().pinned for group in tables.groups] == [10, 2]
    for slot in (0, 1, 2, 0, 1, 2):
        tables.release(slot)
        read(tables, slot, 90, first=slot + 1)
    assert tables.take_prefix(3, names(10)) == 160


def test_after_new_weights_nothing_old_is_found_and_nothing_half_old_published():
    tables = make_tables(None)
    read(tables, 0, 64)
    read(tables, 1, 64, first=1)
    tables.release(1)
    tables.forget()
    read(tables, 0, 128, start=64)
    assert tables.take_prefix(2, names(8)) == tables.take_prefix(2, names(8, first=1)) == 0
    tables.release(0)
    assert tables.stats().cached == 0
    read(tables, 0, 64)
    assert tables.take_prefix(2, names(4)) == 64
