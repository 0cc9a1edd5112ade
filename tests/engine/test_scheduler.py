from kilonova.core.types import SamplingParams
from kilonova.engine.scheduler import Scheduler, Sequence


def sequence(prompt: int) -> Sequence:
    return Sequence(token_ids=[1] * prompt, prompt_length=prompt, sampling=SamplingParams(), seed=0)


def run(scheduler: Scheduler) -> list[tuple[Sequence, int, int]]:
    """One step, in which every sequence that is read to its end gets a token."""
    chunks = scheduler.schedule()
    for chunk in chunks:
        chunk.sequence.num_computed = chunk.end
        if chunk.reaches_end:
            chunk.sequence.token_ids.append(2)
    return [tuple(chunk) for chunk in chunks]


def test_admits_in_arrival_order_while_places_last():
    scheduler = Scheduler(2)
    first, second, third = sequence(3), sequence(4), sequence(5)
    for one in (first, second, third):
        scheduler.add(one)
    assert run(scheduler) == [(first, 0, 3), (second, 0, 4)]
    assert (first.slot, second.slot, third.slot) == (0, 1, -1)
    scheduler.remove(first)
    assert run(scheduler) == [(second, 4, 1), (third, 0, 5)]
    assert third.slot == 0


def test_a_prompt_is_read_in_chunks():
    scheduler = Scheduler(4, prefill_tokens=10)
    long, short = sequence(25), sequence(7)
    scheduler.add(long)
    scheduler.add(short)
    assert run(scheduler) == [(long, 0, 10)]
    assert run(scheduler) == [(long, 10, 10)]
    assert run(scheduler) == [(long, 20, 5), (short, 0, 5)]


def test_generating_sequences_run_in_every_step_beside_a_long_prompt():
    scheduler = Scheduler(4, prefill_tokens=100, mixed_prefill_tokens=4)
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
    scheduler = Scheduler(3)
    first, second = sequence(1), sequence(6)
    scheduler.add(second)
    scheduler.add(first)
    assert run(scheduler) == [(first, 0, 1), (second, 0, 6)]


def test_a_waiting_sequence_can_be_removed():
    scheduler = Scheduler(1)
    first, second = sequence(1), sequence(1)
    scheduler.add(first)
    scheduler.add(second)
    run(scheduler)
    scheduler.remove(second)
    scheduler.remove(first)
    assert not scheduler.has_work
    assert scheduler.schedule() == []
