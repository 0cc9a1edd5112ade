"""The order in which waiting sequences are admitted."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

# Names of tenants whose last turn is remembered.
_REMEMBERED_TENANTS = 1024


class Waiting(Protocol):
    """What the queue looks at: `priority` 0 goes first, and `arrived` is in seconds of the queue's clock."""

    priority: int
    tenant: str
    arrived: float


W = TypeVar("W", bound=Waiting)


class WaitingQueue(Generic[W]):
    """Higher priority first; tenants of equal priority take turns; each tenant's own in the order of arrival.

    A sequence gains one step of priority for every `seconds_per_step` it has waited, up to the highest, so that nothing
    waits for ever.
    """

    def __init__(self, clock: Callable[[], float], seconds_per_step: float) -> None:
        self._clock = clock
        self._seconds_per_step = seconds_per_step
        self._queues: dict[tuple[int, str], deque[W]] = {}
        self._turns: OrderedDict[str, int] = OrderedDict()
        self._turn = 0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[W]:
        for queue in self._queues.values():
            yield from queue

    def add(self, item: W) -> None:
        """Queue an item behind its tenant's others of the same priority."""
        self._queues.setdefault((item.priority, item.tenant), deque()).append(item)
        self._length += 1

    def put_back(self, item: W) -> None:
        """Queue an item that was taken before its tenant's others of the same priority."""
        self._queues.setdefault((item.priority, item.tenant), deque()).appendleft(item)
        self._length += 1

    def first(self) -> W:
        """The item to admit next, which stays in the queue."""
        now = self._clock()

        def order(item: W) -> tuple[int, int, float]:
            steps = int((now - item.arrived) / self._seconds_per_step)
            return max(0, item.priority - steps), self._turns.get(item.tenant, -1), item.arrived

        return min((queue[0] for queue in self._queues.values()), key=order)

    def take(self, item: W) -> None:
        """Take out an item; its tenant has had its turn."""
        self.remove(item)
        self._turns[item.tenant] = self._turn
        self._turns.move_to_end(item.tenant)
        self._turn += 1
        if len(self._turns) > _REMEMBERED_TENANTS:
            self._turns.popitem(last=False)

    def remove(self, item: W) -> None:
        """Take out an item that is no longer wanted."""
        key = (item.priority, item.tenant)
        queue = self._queues[key]
        queue.remove(item)
        self._length -= 1
        if not queue:
            del self._queues[key]
