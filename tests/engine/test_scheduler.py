import random

import pytest

from kilonova.core.types import SamplingParams
from kilonova.engine.block_tables import BLOCK_SIZE, BlockTables, GroupSize
from kilonova.engine.cache_points import CachePoint
from kilonova.engine.scheduler import PRIORITIES, Chunk, Scheduler, Sequence


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(
    num_slots: int, *, num_blocks: int = 1000, window: int | None = None, clock: Clock | None = None, **limits: int
) -> Scheduler[Sequence]:
    sizes = [GroupSize(None, num_blocks)] + ([GroupSize(window, num_blocks)] if window else [])
    clock = clock or Clock()
    tables = BlockTables(sizes, num_slots, min(1000, (num_blocks - 1) * BLOCK_SIZE), clock)
    return Scheduler(tables, clock=clock, **limits)


def sequence(prompt: int, first: int = 0, **fields) -> Sequence:
    """A sequence whose prompt differs from those of other `first`."""
    tokens = [first, *range(1, prompt)]
    return Sequence(token_ids=tokens, prompt_length=prompt, sampling=SamplingParams(), seed=0, **fields)


def run(scheduler: Scheduler, right: int = 0) -> list[tuple[Sequence, int, int]]:
    """One step, in which every sequence that is read to its end gets a token, after up to `right` right guesses."""
    chunks = scheduler.schedule()
    scheduler.complete(chunks)
    for chunk in chunks:
        one = chunk.sequence
        assert one.num_computed == chunk.end - chunk.num_drafted
        if chunk.reaches_end:
            guesses = one.draft[: min(chunk.num_drafted, right)]
            one.token_ids += [*guesses, 2]
            scheduler.accept(one, len(guesses))
            assert one.num_remaining == 1
        one.draft = []
    return [(chunk.sequence, chunk.start, chunk.length) for chunk in chunks]


def test_admits_in_arrival_order_while_places_last():
    scheduler = make(2)
    first, second, third = sequence(3), sequence(4), sequence(5)
    for one in (first, second, third):
        scheduler.add(one)
    assert run(scheduler) == [(first, 0, 3), (second, 0, 4)]
    assert (first.slot, second.slot, third.slot) == (0, 1, -1)
    scheduler.remove(first)
    assert run(scheduler) == [(second, 4, 1), (third, 0, 5)]
    assert third.slot == 0


def test_a_prompt_is_read_in_chunks():
    scheduler = make(4, prefill_tokens=10)
    long, short = sequence(25), sequence(7)
    scheduler.add(long)
    scheduler.add(short)
    assert run(scheduler) == [(long, 0, 10)]
    assert run(scheduler) == [(long, 10, 10)]
    assert run(scheduler) == [(long, 20, 5), (short, 0, 5)]


def test_generating_sequences_run_in_every_step_beside_a_long_prompt():
    scheduler = make(4, prefill_tokens=100, mixed_prefill_tokens=4)
    streams = [sequence(2), sequence(2)]
    for one in streams:
        scheduler.add(one)
    run(scheduler)
    long = sequence(11)
    scheduler.add(long)
    for start, length in ((0, 4), (4, 4), (8, 3)):
        step = run(scheduler)
        assert [one for one, _, _ in step[:2]] == streams
        assert step[2:] == [(long, start, length)]
    assert [one for one, _, _ in run(scheduler)] == [*streams, long]


def test_single_tokens_come_first_by_slot():
    scheduler = make(3)
    first, second = sequence(1), sequence(6)
    scheduler.add(second)
    scheduler.add(first)
    assert run(scheduler) == [(first, 0, 1), (second, 0, 6)]


def test_a_waiting_sequence_can_be_removed():
    scheduler = make(1)
    first, second = sequence(1), sequence(1)
    scheduler.add(first)
    scheduler.add(second)
    run(scheduler)
    scheduler.remove(second)
    scheduler.remove(first)
    assert not scheduler.has_work
    assert scheduler.schedule() == []
    assert scheduler.blocks.is_whole()


def test_a_cached_prefix_is_not_read_again():
    scheduler = make(4)
    first, second = sequence(100), sequence(100)
    scheduler.add(first)
    run(scheduler)
    scheduler.add(second)
    assert run(scheduler)[1:] == [(second, 96, 4)]
    assert (first.num_cached, second.num_cached) == (0, 96)


def test_the_last_token_of_a_prompt_is_always_read():
    scheduler = make(4)
    scheduler.add(sequence(64))
    run(scheduler)
    again = sequence(64)
    scheduler.add(again)
    assert run(scheduler)[1:] == [(again, 48, 16)]


def test_what_was_generated_is_a_prefix_too():
    scheduler = make(2)
    first = sequence(40)
    scheduler.add(first)
    for _ in range(30):
        run(scheduler)
    scheduler.remove(first)
    follow_up = sequence(1)
    follow_up.token_ids = [*first.token_ids, 7]
    follow_up.prompt_length = len(follow_up.token_ids)
    scheduler.add(follow_up)
    run(scheduler)
    assert follow_up.num_cached == 64


def test_other_salts_and_those_that_need_every_token_reuse_nothing():
    scheduler = make(8)
    scheduler.add(sequence(100, salt="a"))
    run(scheduler)
    for one in (sequence(100, salt="b"), sequence(100, salt="a", reads_prefixes=False)):
        scheduler.add(one)
        run(scheduler)
        assert one.num_cached == 0


def test_a_prefix_is_shared_while_it_is_still_being_read():
    """The second of two equal prompts starts where the first one has got to."""
    scheduler = make(4, prefill_tokens=64)
    first, second = sequence(100), sequence(100)
    scheduler.add(first)
    scheduler.add(second)
    assert run(scheduler) == [(first, 0, 64)]
    assert run(scheduler) == [(first, 64, 36), (second, 64, 28)]


def test_admission_waits_for_the_blocks_of_the_first_chunk():
    scheduler = make(4, num_blocks=11)
    first, second = sequence(100), sequence(64, first=9)
    scheduler.add(first)
    scheduler.add(second)
    assert run(scheduler) == [(first, 0, 100)]
    assert run(scheduler) == [(first, 100, 1)]
    scheduler.remove(first)
    assert run(scheduler) == [(second, 0, 64)]


def test_the_latest_of_the_lowest_priority_is_preempted_and_comes_back_first():
    scheduler = make(4, num_blocks=10)
    flex = sequence(20, first=1, priority=PRIORITIES["flex"], arrived=1.0)
    early, late = sequence(20, first=2, arrived=2.0), sequence(20, first=3, arrived=3.0)
    for one in (flex, early, late):
        scheduler.add(one)
    while scheduler.num_preemptions == 0:
        run(scheduler)
    assert [one.slot >= 0 for one in (flex, early, late)] == [False, True, True]
    assert (flex.was_preempted, flex.num_computed) == (True, 0)
    waiting = sequence(10, first=4, priority=PRIORITIES["flex"], arrived=0.5)
    scheduler.add(waiting)
    while scheduler.num_preemptions == 1:
        run(scheduler)
    assert [one.slot >= 0 for one in (flex, early, late)] == [False, True, False]
    known = list(flex.token_ids)
    scheduler.remove(early)
    scheduler.remove(late)
    ((resumed, start, length), *_) = run(scheduler)
    assert resumed is flex
    # What it computed before is still cached, and only the rest is computed again.
    assert start + length == len(known) == len(flex.token_ids) - 1
    assert flex.num_cached == 0


def test_a_prompt_waits_for_blocks_of_those_that_generate():
    scheduler = make(2, num_blocks=9, prefill_tokens=64, mixed_prefill_tokens=64)
    stream = sequence(33, first=1, arrived=2.0)
    scheduler.add(stream)
    run(scheduler)
    long = sequence(128, first=2, arrived=1.0)
    scheduler.add(long)
    assert run(scheduler) == [(stream, 33, 1), (long, 0, 32)]
    assert run(scheduler) == [(stream, 34, 1), (long, 32, 32)]
    assert run(scheduler) == [(stream, 35, 1), (long, 64, 16)]
    assert run(scheduler) == [(stream, 36, 1)]
    scheduler.remove(stream)
    assert run(scheduler) == [(long, 80, 48)]
    assert scheduler.num_preemptions == 0


def test_a_prompt_takes_blocks_from_lower_tiers():
    scheduler = make(2, num_blocks=9, prefill_tokens=64, mixed_prefill_tokens=64)
    stream = sequence(30, first=1, arrived=0.0, priority=PRIORITIES["flex"])
    scheduler.add(stream)
    run(scheduler)
    long = sequence(128, first=2, arrived=1.0)
    scheduler.add(long)
    while long.num_output_tokens == 0:
        run(scheduler)
    assert stream.was_preempted


def test_priorities_and_tenants_decide_who_is_admitted():
    scheduler = make(1)
    running = sequence(5)
    scheduler.add(running)
    run(scheduler)
    items = {
        "flex": sequence(5, priority=PRIORITIES["flex"]),
        "a1": sequence(5, tenant="a", arrived=1.0),
        "a2": sequence(5, tenant="a", arrived=2.0),
        "b1": sequence(5, tenant="b", arrived=3.0),
        "urgent": sequence(5, tenant="b", priority=PRIORITIES["priority"], arrived=4.0),
    }
    for one in items.values():
        scheduler.add(one)
    order = []
    while scheduler.waiting:
        scheduler.remove(scheduler.running[0])
        run(scheduler)
        order.append(next(name for name, one in items.items() if one is scheduler.running[0]))
    assert order == ["urgent", "a1", "b1", "a2", "flex"]


def test_cache_points_pin_their_prefix_for_their_time():
    clock = Clock()
    scheduler = make(2, num_blocks=41, clock=clock)
    first = sequence(100, cache_points=[CachePoint(70, 60.0)])
    scheduler.add(first)
    run(scheduler)
    scheduler.remove(first)
    assert (first.num_cached, first.num_kept) == (0, 64)
    assert scheduler.blocks.stats().pinned == 4

    def fill() -> None:
        for number in range(1, 8):
            one = sequence(300, first=number)
            scheduler.add(one)
            run(scheduler)
            scheduler.remove(one)

    def cached() -> tuple[int, int]:
        one = sequence(100, cache_points=[CachePoint(70, 60.0)])
        scheduler.add(one)
        run(scheduler)
        scheduler.remove(one)
        return one.num_cached, one.num_kept

    clock.now = 50.0
    fill()
    assert cached() == (64, 0)
    clock.now = 105.0
    fill()
    assert cached() == (64, 0)
    clock.now = 170.0
    fill()
    assert cached() == (0, 64)


def test_layers_with_a_window_keep_what_is_before_a_cache_point():
    scheduler = make(2, num_blocks=70, window=20, prefill_tokens=50)
    first = sequence(600, cache_points=[CachePoint(100, 60.0)])
    scheduler.add(first)
    while first.num_output_tokens == 0:
        run(scheduler)
    scheduler.remove(first)
    assert [group.pool.stats().pinned for group in scheduler.blocks.groups] == [6, 2]
    for number in range(1, 4):
        scheduler.add(one := sequence(600, first=number))
        while one.num_output_tokens == 0:
            run(scheduler)
        scheduler.remove(one)
    again = sequence(600)
    scheduler.add(again)
    run(scheduler)
    assert again.num_cached == 96


def test_a_pool_full_of_pins_still_serves():
    scheduler = make(2, num_blocks=41)
    pinned = sequence(300, cache_points=[CachePoint(300, 3600.0)])
    scheduler.add(pinned)
    run(scheduler)
    scheduler.remove(pinned)
    assert scheduler.blocks.stats().pinned == 18
    large = sequence(600, first=1)
    scheduler.add(large)
    while large.num_output_tokens == 0:
        assert run(scheduler)


@pytest.mark.parametrize(("window", "num_blocks"), [(None, 20), (None, 60), (50, 40)])
def test_ten_thousand_random_operations_leave_the_pool_as_it_began(window, num_blocks):
    random_ = random.Random(num_blocks)
    clock = Clock()
    scheduler = make(6, num_blocks=num_blocks, window=window, clock=clock, prefill_tokens=64, mixed_prefill_tokens=32)
    untouched = scheduler.blocks.stats()
    live: list[Sequence] = []
    limit = scheduler.blocks.max_length
    steps = finished = cancelled = cached = 0
    for number in range(10_000):
        clock.now += random_.random()
        draw = random_.random()
        if draw < 0.12 and len(live) < 30:
            prompt = random_.randint(1, min(200, limit - 50))
            points = [CachePoint(random_.randint(0, prompt), random_.uniform(1, 50))] if random_.random() < 0.3 else []
            one = sequence(
                prompt,
                first=random_.randrange(8),
                priority=random_.randrange(3),
                tenant=random_.choice("abc"),
                arrived=clock.now,
                cache_points=points,
                reads_prefixes=random_.random() < 0.9,
            )
            live.append(one)
            scheduler.add(one)
        elif draw < 0.14 and live:
            scheduler.remove(live.pop(random_.randrange(len(live))))
            cancelled += 1
        elif number % 2500 == 0:
            scheduler.blocks.forget()
        elif scheduler.has_work:
            for one in scheduler.running:
                if one.is_generating and random_.random() < 0.2:
                    one.draft = [3] * min(random_.randint(1, 8), limit - len(one.token_ids))
            step = run(scheduler, right=random_.randrange(9))
            assert step, "work must always go on"
            steps += 1
            for one, start, length in step:
                assert (one.slot, one.num_computed) != (-1, 0)
                for group in scheduler.blocks.groups:
                    seen = range(group.first_block(start), -(-(start + length) // BLOCK_SIZE))
                    assert all(group.table[one.slot, index] for index in seen)
                assert len(one.token_ids) <= limit + 1
                if (one.num_output_tokens and random_.random() < 0.01) or len(one.token_ids) >= limit:
                    scheduler.remove(one)
                    live.remove(one)
                    finished += 1
                    cached += one.num_cached > 0
    assert min(steps, finished, cancelled, cached, scheduler.num_preemptions) > 10
    for one in live:
        scheduler.remove(one)
    assert not scheduler.has_work
    assert scheduler.blocks.is_whole()
    scheduler.blocks.forget()
    assert scheduler.blocks.stats() == untouched
    assert sorted(scheduler._free_slots) == list(range(6))


def test_short_prompts_are_read_whole_where_long_ones_get_little():
    scheduler = make(8, num_blocks=200, prefill_tokens=256, mixed_prefill_tokens=128)
    generating = sequence(4)
    scheduler.add(generating)
    run(scheduler)
    # Steps with prompts turn out to take far longer than those without: long prompts are read in small pieces.
    for _ in range(20):
        scheduler.observe([Chunk(generating, 4, 1)], 1.0)
        scheduler.observe([Chunk(generating, 4, 1), Chunk(sequence(200), 0, 32)], 50.0)
    first_long, short, second_long = sequence(300), sequence(90), sequence(290)
    for one in (first_long, short, second_long):
        scheduler.add(one)
    assert run(scheduler)[1:] == [(first_long, 0, 8), (short, 0, 90)]
    assert run(scheduler)[2:] == [(first_long, 8, 8)]
