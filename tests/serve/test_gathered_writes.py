import asyncio
from typing import Any, cast

from kilonova.serve.gathered_writes import GatheredWrites


class Recorder:
    """What a transport is told to do, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("close")

    def abort(self) -> None:
        self.told.append("abort")

    def get_extra_info(self, name: str) -> str:
        return f"its {name}"


async def turns(*steps: Any) -> list[Any]:
    """What the transport was told by `steps`, each a turn of the event loop."""
    transport = Recorder()
    gathered = GatheredWrites(cast(asyncio.Transport, transport), asyncio.get_running_loop())
    assert gathered.get_extra_info("socket") == "its socket"
    for step in steps:
        step(gathered)
        await asyncio.sleep(0)
    return transport.told


def write(*pieces: bytes) -> Any:
    return lambda gathered: [gathered.write(piece) for piece in pieces]


def test_the_writes_of_one_turn_are_one() -> None:
    assert asyncio.run(turns(write(b"head", b"a", b"b"), write(b"c"), write(b"d", b"e"))) == [b"headab", b"c", b"de"]


def test_a_large_write_does_not_wait() -> None:
    large = bytes(70_000)
    told = asyncio.run(turns(lambda gathered: (write(b"a", large)(gathered), gathered.abort())))
    assert told == [b"a" + large, "abort"]


def test_what_was_written_is_sent_before_it_closes_and_lost_when_it_aborts() -> None:
    close = asyncio.run(turns(lambda gathered: (gathered.write(b"end"), gathered.close())))
    assert close == [b"end", "close"]
    abort = asyncio.run(turns(lambda gathered: (gathered.write(b"end"), gathered.abort())))
    assert abort == ["abort"]
