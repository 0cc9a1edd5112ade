"""Runs training in child processes and starts them again when one fails."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from kilonova.core.errors import ConfigError, DataError, KilonovaError
from kilonova.recipes import find_recipe
from kilonova.train.build import load_recipe
from kilonova.train.faults.stability import TrainingDiverged
from kilonova.train.goodput.ledger import Ledger
from kilonova.train.run import train
from kilonova.train.signals import Interrupted, StopSignals

_STOPPED = 76
_FAILED_FOR_GOOD = 2
_PERMANENT = (ConfigError, DataError, TrainingDiverged)
_PR_SET_PDEATHSIG = 1


class TrainingFailed(KilonovaError):
    """A run failed more often than it may be started again."""


def supervise(name: str | Path, overrides: Sequence[str] = (), *, processes: int = 1, max_restarts: int = 0) -> Path:
    """Train as `kilonova.train.run.train`, in `processes` ranks on this machine that are forked from this process.

    As they are forked after the imports, a restart does not wait for those. When one rank dies, the others are killed
    and all start again from the newest checkpoint, at most `max_restarts` times; then `TrainingFailed` is raised. A
    signal to stop is passed on, and raises `Interrupted` once the ranks have saved.
    """
    recipe = load_recipe(find_recipe(name), overrides)
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(Path(recipe.output) / "ledger" / "supervisor.jsonl"))
        stop = stack.enter_context(StopSignals())
        for attempt in range(max_restarts + 1):
            ranks = _start(lambda: train(name, overrides), processes)
            ended = _wait(ranks, stop)
            ledger.note("child ended", attempt=attempt, status=ended)
            if ended == 0:
                return Path(recipe.output) / "model"
            if ended == _STOPPED or stop.requested:
                raise Interrupted("stopped; the same command continues the run")
            if ended == _FAILED_FOR_GOOD:
                raise ConfigError("the run cannot go on, and would not if started again; see above")
            if attempt < max_restarts:
                what = f"a process ended with status {ended}; restart {attempt + 1} of {max_restarts}"
                print(what, file=sys.stderr, flush=True)
    raise TrainingFailed(f"gave up after {max_restarts} restarts; see above, and {recipe.output}/log.jsonl")


def _start(target: Callable[[], object], processes: int) -> dict[int, int]:
    """Fork the ranks; returns rank by process id."""
    environment = {}
    if processes > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            # Without it Gloo asks the host's name for an address, which need not be one of this machine's.
            "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo"),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
        }
    ranks = {}
    for rank in range(processes):
        if (pid := os.fork()) == 0:
            if sys.platform == "linux":
                # Without its supervisor a rank saves and ends, so that a second run does not write beside it.
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if processes > 1:
                os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
            os._exit(_run(target))
        ranks[pid] = rank
    return ranks


def _run(target: Callable[[], object]) -> int:
    """In a child: the status to exit with."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    try:
        target()
    except Interrupted:
        return _STOPPED
    except KilonovaError as error:
        print(f"error: {error}", file=sys.stderr)
        return _FAILED_FOR_GOOD if isinstance(error, _PERMANENT) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _wait(ranks: dict[int, int], stop: StopSignals) -> int:
    """Wait for all ranks to end well, or one to fail, which ends all; returns 0 or the first failed status.

    A rank that a signal ended has minus the signal's number as status.
    """
    running, told = set(ranks), False
    while running:
        if stop.requested and not told:
            told = True
            _signal(running, signal.SIGTERM)
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            time.sleep(0.02)
            continue
        if pid not in running:
            continue
        running.discard(pid)
        code = os.waitstatus_to_exitcode(status)
        if code != 0 and not (code == _STOPPED and running):
            _signal(running, signal.SIGKILL)
            for other in running:
                os.waitpid(other, 0)
            return code
    return 0


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)
