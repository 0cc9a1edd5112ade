from dataclasses import dataclass

from kilonova.engine.queue import WaitingQueue


@dataclass(eq=False)
class Item:
    tenant: str = ""
    priority: int = 1
    arrived: float = 0.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def queue_of(*items: Item, clock: Clock | None = None) -> WaitingQueue[Item]:
    queue: WaitingQueue[Item] = WaitingQueue(clock or Clock(), 30.0)
    for item in items:
        queue.add(item)
    return queue


def drain(queue: WaitingQueue[Item]) -> list[Item]:
    taken = []
    while queue:
        taken.append(queue.first())
        queue.take(taken[-1])
    return taken


def test_higher_priority_first_then_arrival():
    flex, first, second, urgent = Item(priority=2), Item(), Item(arrived=1), Item(priority=0, arrived=2)
    queue = queue_of(flex, first, second, urgent)
    assert len(queue) == len(list(queue)) == 4
    assert drain(queue) == [urgent, first, second, flex]


def test_tenants_take_turns():
    many = [Item("a", arrived=number) for number in range(5)]
    few = [Item("b", arrived=10), Item("b", arrived=11)]
    other = Item("c", arrived=12)
    assert drain(queue_of(*many, *few, other)) == [many[0], few[0], other, many[1], few[1], many[2], many[3], many[4]]


def test_a_tenant_that_always_comes_back_does_not_go_before_one_that_waits():
    queue = queue_of(*(Item("patient", arrived=number) for number in range(4)))
    taken = []
    for number in range(8):
        if not any(item.tenant == "eager" for item in queue):
            queue.add(Item("eager", arrived=5.0 + number))
        taken.append(queue.first())
        queue.take(taken[-1])
    assert [item.tenant for item in taken] == ["patient", "eager"] * 4


def test_turns_are_within_a_priority():
    urgent = [Item("a", 0), Item("a", 0)]
    other = Item("b", 1)
    assert drain(queue_of(other, *urgent)) == [*urgent, other]


def test_waiting_raises_priority():
    clock = Clock()
    flex = Item(priority=2)
    queue = queue_of(flex, clock=clock)

    def beats_a_newcomer(priority: int) -> bool:
        newcomer = Item(priority=priority, arrived=clock.now)
        queue.add(newcomer)
        first = queue.first()
        queue.remove(newcomer)
        return first is flex

    for clock.now, expected in (
        (29.0, [False, False]),
        (30.0, [False, True]),
        (59.0, [False, True]),
        (60.0, [True] * 2),
    ):
        assert [beats_a_newcomer(0), beats_a_newcomer(1)] == expected


def test_what_is_put_back_comes_next():
    first, second = Item(), Item(arrived=1)
    queue = queue_of(first, second)
    queue.take(first)
    queue.put_back(first)
    assert drain(queue) == [first, second]


def test_removing():
    first, second, other = Item(), Item(), Item("b")
    queue = queue_of(first, second, other)
    queue.remove(first)
    assert drain(queue) == [second, other]
    assert not queue
