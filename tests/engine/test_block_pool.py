import random

import pytest

from kilonova.engine.block_pool import NULL_BLOCK, BlockPool, PoolStats, block_hash, root_hash


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def publish(pool: BlockPool, *names: bytes) -> list[int]:
    """Blocks of these contents that nobody holds, the first one used longest ago."""
    blocks = pool.allocate(len(names))
    for block, name in zip(blocks, names, strict=True):
        pool.publish(block, name)
    for block in blocks:
        pool.release(block)
    return blocks


def test_every_block_but_the_null_block_is_handed_out_once():
    pool = BlockPool(9)
    blocks = pool.allocate(8)
    assert sorted(blocks) == list(range(NULL_BLOCK + 1, 9))
    assert (pool.num_available, pool.is_whole()) == (0, False)
    for block in blocks:
        pool.release(block)
    assert pool.is_whole()
    assert pool.stats() == PoolStats(used=0, cached=0, pinned=0, free=8)


def test_memory_is_used_from_the_lowest_block_on_and_again():
    pool = BlockPool(100)
    assert pool.allocate(3) == [1, 2, 3]
    pool.release(2)
    assert pool.allocate(2) == [2, 4]


def test_a_block_is_shared_until_its_last_holder_lets_go():
    pool = BlockPool(4)
    (block,) = pool.allocate(1)
    pool.publish(block, b"a")
    assert pool.find(b"a") == block
    pool.hold(block)
    pool.release(block)
    assert pool.stats().used == 1
    pool.release(block)
    assert pool.stats() == PoolStats(used=0, cached=1, pinned=0, free=2)
    pool.hold(block)
    assert pool.stats() == PoolStats(used=1, cached=0, pinned=0, free=2)
    pool.release(block)
    assert pool.is_whole()


def test_empty_blocks_go_first_then_the_one_used_longest_ago():
    pool = BlockPool(6)
    a, b, c = publish(pool, b"a", b"b", b"c")
    pool.hold(a)
    pool.release(a)
    assert set(pool.allocate(2)) == {4, 5}
    assert pool.allocate(1) == [b]
    assert pool.find(b"b") is None
    assert pool.allocate(2) == [c, a]


def test_equal_contents_are_kept_once():
    pool = BlockPool(5)
    first, second = pool.allocate(2)
    pool.publish(first, b"a")
    pool.publish(second, b"a")
    assert pool.find(b"a") == first
    pool.release(first)
    pool.release(second)
    assert pool.stats() == PoolStats(used=0, cached=1, pinned=0, free=3)
    assert pool.is_whole()


def test_pinned_blocks_outlast_others_until_their_time_is_over(clock):
    pool = BlockPool(5, clock)
    pinned, other = publish(pool, b"pinned", b"other")
    assert pool.pin(b"pinned", 60)
    assert pool.stats() == PoolStats(used=0, cached=2, pinned=1, free=2)
    assert pool.allocate(3)[-1] == other
    clock.now += 59
    assert pool.stats().pinned == 1
    clock.now += 1
    assert pool.stats() == PoolStats(used=3, cached=1, pinned=0, free=0)
    assert pool.find(b"pinned") == pinned


def test_an_expired_pin_is_evicted_before_what_was_used_since(clock):
    pool = BlockPool(5, clock)
    publish(pool, b"pinned", b"other", b"another", b"last")
    pool.pin(b"pinned", 60)
    clock.now += 61
    pool.stats()
    pool.allocate(1)
    assert pool.find(b"pinned") is None
    assert pool.find(b"other") is not None


def test_use_renews_a_pin(clock):
    pool = BlockPool(5, clock)
    (block,) = publish(pool, b"a")
    pool.pin(b"a", 60)
    clock.now += 50
    pool.hold(block)
    clock.now += 50
    pool.release(block)
    clock.now += 59
    assert pool.stats().pinned == 1
    clock.now += 1
    assert pool.stats().pinned == 0


def test_a_pin_takes_the_longer_time(clock):
    pool = BlockPool(5, clock)
    publish(pool, b"a")
    pool.pin(b"a", 60)
    pool.pin(b"a", 10)
    clock.now += 59
    assert pool.stats().pinned == 1


def test_pinned_blocks_are_given_up_before_there_is_nothing_left():
    pool = BlockPool(4)
    publish(pool, b"a", b"b", b"c")
    assert pool.pin(b"a", 60)
    assert pool.pin(b"b", 60)
    assert len(pool.allocate(3)) == 3
    assert pool.find(b"a") is pool.find(b"b") is None


def test_at_most_half_of_the_blocks_are_pinned():
    pool = BlockPool(10)
    names = [bytes([number]) for number in range(9)]
    publish(pool, *names)
    assert [pool.pin(name, 60) for name in names] == [True] * 5 + [False] * 4
    assert pool.pin(b"unknown", 60) is False
    assert pool.stats().pinned == 5


def test_forgetting_leaves_what_is_held():
    pool = BlockPool(6)
    publish(pool, b"a", b"b")
    pool.pin(b"a", 60)
    (held,) = pool.allocate(1)
    pool.publish(held, b"c")
    pool.forget()
    assert [pool.find(name) for name in (b"a", b"b", b"c")] == [None] * 3
    assert pool.stats() == PoolStats(used=1, cached=0, pinned=0, free=4)
    pool.release(held)
    assert pool.is_whole()
    assert pool.stats().free == 5


def test_names_depend_on_tokens_on_what_is_before_them_and_on_the_salt():
    root = root_hash("")
    first = block_hash(root, [1, 2, 3])
    assert first == block_hash(root_hash(""), [1, 2, 3])
    names = {
        first,
        block_hash(root, [1, 2, 4]),
        block_hash(root_hash("adapter"), [1, 2, 3]),
        block_hash(first, [1, 2, 3]),
        block_hash(block_hash(root, [1, 2, 4]), [1, 2, 3]),
    }
    assert len(names) == 5


@pytest.mark.parametrize("seed", range(3))
def test_random_use_agrees_with_a_plain_count_of_holders(seed, clock):
    random_ = random.Random(seed)
    pool = BlockPool(30, clock)
    held: list[int] = []
    for _ in range(3000):
        clock.now += random_.random()
        action = random_.randrange(5)
        if action == 0 and pool.num_available:
            held += pool.allocate(random_.randint(1, min(4, pool.num_available)))
        elif action == 1 and held:
            pool.release(held.pop(random_.randrange(len(held))))
        elif action == 2 and held:
            pool.publish(random_.choice(held), bytes([random_.randrange(40)]))
        elif action == 3 and (block := pool.find(bytes([random_.randrange(40)]))) is not None:
            pool.hold(block)
            held.append(block)
        elif action == 4:
            pool.pin(bytes([random_.randrange(40)]), random_.randrange(20))
        stats = pool.stats()
        assert stats.used == len(set(held))
        assert stats.used + stats.cached + stats.free == 29
    for block in held:
        pool.release(block)
    assert pool.is_whole()
    pool.forget()
    assert pool.stats() == PoolStats(0, 0, 0, 29)
