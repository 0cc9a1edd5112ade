"""Many streaming clients on one server, of which some leave: is anything lost or leaked, and what does serving cost?"""

from __future__ import annotations

import json
import multiprocessing
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from load.bare import bare_engine
from load.clients import Tally, run_clients
from peers.random_models import models_folder

_IDLE_SECONDS = 30.0


def main(
    clients: Annotated[int, typer.Option(min=1, help="Clients at a time.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, help="How long they ask, in all rounds.")] = 120.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in which the server and the bare engine take turns.")] = 4,
    model: Annotated[str, typer.Option(help="A model's name or a directory.")] = "micro",
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Requests that run together.")] = 32,
    seed: Annotated[int, typer.Option(help="Equal seeds make equal requests.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Stream from a server of its own, half over OpenAI's protocol and half over Bedrock's, and leave a third halfway.

    Afterwards: is there one ledger row for each request that was taken, is nothing left in the engine, and how do its
    tokens a second compare with the same requests to a bare engine? Exit code 1 where something was lost or leaked.

    Example: python benchmarks/server_load.py --clients 20 --seconds 10 --rounds 2
    """
    directory = _directory(model)
    part = seconds / rounds
    with tempfile.TemporaryDirectory() as folder:
        with (
            running_server(directory, Path(folder), max_num_seqs) as port,
            bare_engine(directory, max_num_seqs) as bare,
        ):
            at_start = read_metrics(port)
            served, bared, tallies = [], [], []
            for index in range(rounds):
                tally, measured = _serve_round(port, clients, part, seed + index)
                tallies.append(tally)
                served.append(measured)
                bared.append(bare.run(clients, part, seed + index))
            leaks = find_leaks(port, at_start)
        lost = find_lost(Path(folder), tallies)
    report = summarise(tallies, served, bared) | {"leaks": leaks, "lost_rows": lost}
    report |= {"clients": clients, "seconds": seconds, "rounds": rounds, "model": model, "max_num_seqs": max_num_seqs}
    if as_json:
        print(json.dumps(report, indent=1))
    else:
        _print(report)
    if leaks or lost or report["errors"]:
        raise typer.Exit(1)


def _serve_round(port: int, clients: int, seconds: float, seed: int) -> tuple[Tally, dict[str, float]]:
    before = read_metrics(port)
    tally = _in_a_process(port, clients, seconds, seed)
    _wait_until_idle(port)
    after = read_metrics(port)

    def spent(name: str) -> float:
        return sum_of(after, name) - sum_of(before, name)

    return tally, {
        "tokens": sum_of(after, "kilonova_tokens_total", kind="output")
        - sum_of(before, "kilonova_tokens_total", kind="output"),
        "seconds": tally.seconds,
        "step_seconds": spent("kilonova_engine_step_seconds_total"),
        "loop_cpu_seconds": spent("kilonova_event_loop_cpu_seconds_total"),
        "cpu_seconds": spent("process_cpu_seconds_total"),
    }


def _in_a_process(port: int, clients: int, seconds: float, seed: int) -> Tally:
    """In a process of their own, as clients are, so that their garbage and ours do not mix."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_ask, args=(theirs, port, clients, seconds, seed), daemon=True)
    process.start()
    tally = ours.recv()
    process.join()
    return tally


def _ask(connection: Any, port: int, clients: int, seconds: float, seed: int) -> None:
    connection.send(uvloop.run(run_clients("127.0.0.1", port, "served", clients, seconds, seed)))


def summarise(tallies: list[Tally], served: list[dict], bared: list[dict]) -> dict[str, Any]:
    """Counts of all rounds, and medians of their rates."""
    outcomes = sum((tally.outcomes for tally in tallies), Counter())
    rates = [each["tokens"] / each["seconds"] for each in served]
    bare_rates = [each["tokens"] / each["seconds"] for each in bared]

    def outside(rounds: list[dict]) -> float:
        return statistics.median(1 - each["step_seconds"] / each["seconds"] for each in rounds)

    return {
        "outcomes": dict(outcomes),
        "errors": [error for tally in tallies for error in tally.errors],
        "server_tokens_per_s": statistics.median(rates),
        "bare_tokens_per_s": statistics.median(bare_rates),
        "ratio": statistics.median(mine / other for mine, other in zip(rates, bare_rates, strict=True)),
        "server_outside_steps": outside(served),
        "bare_outside_steps": outside(bared),
        "loop_us_per_token": statistics.median(1e6 * each["loop_cpu_seconds"] / each["tokens"] for each in served),
        "server_rounds": served,
        "bare_rounds": bared,
    }


def find_leaks(port: int, at_start: dict[str, float]) -> list[str]:
    """What the server still holds once nobody asks it anything."""
    metrics = _wait_until_idle(port)
    leaks = []
    for name, most in (("kilonova_engine_running", 0), ("kilonova_engine_waiting", 0), ("kilonova_open_requests", 1)):
        if sum_of(metrics, name) > most:
            leaks.append(f"{name} is {sum_of(metrics, name):g}")
    if held := sum_of(metrics, "kilonova_engine_kv_blocks", state="used"):
        leaks.append(f"{held:g} blocks are held")
    if sum_of(metrics, "kilonova_engine_kv_blocks") != sum_of(at_start, "kilonova_engine_kv_blocks"):
        leaks.append("the number of blocks has changed")
    return leaks


def find_lost(data: Path, tallies: list[Tally]) -> list[str]:
    """Requests the server took that are not in its ledger, once each and over. To be called when it has stopped."""
    import sqlalchemy

    from kilonova.serve.database import Database, default_url
    from kilonova.serve.ledger.tables import calls

    database = Database(default_url(data))
    with database.engine.connect() as connection:
        rows = dict(connection.execute(sqlalchemy.select(calls.c.id, calls.c.status)).all())
    database.close()
    taken = [each for tally in tallies for each in tally.ids]
    missing = [f"{each}: no row" for each in taken if each not in rows]
    return missing + [f"{each}: {status}" for each, status in rows.items() if status in ("running", "lost")]


@contextmanager
def running_server(directory: Path, data: Path, max_num_seqs: int) -> Iterator[int]:
    """`kilonova serve` of the checkpoint as `served`; the port it answers on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "kilonova", "serve", "--port", str(port), "--data", str(data)]
    command += ["--model", f"served={directory}", "--max-num-seqs", str(max_num_seqs)]
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            while not _is_ready(port):
                if server.poll() is not None:
                    log.seek(0)
                    raise SystemExit(f"kilonova serve stopped with exit code {server.returncode}\n{log.read()}")
                time.sleep(0.05)
            yield port
        finally:
            server.terminate()


def _is_ready(port: int) -> bool:
    try:
        return bool(_get(port, "/health/ready"))
    except OSError:
        return False


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as response:
        return response.read().decode()


def read_metrics(port: int) -> dict[str, float]:
    """Every sample at /metrics, by its name with its labels."""
    lines = (line for line in _get(port, "/metrics").splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def sum_of(metrics: dict[str, float], name: str, **labels: str) -> float:
    """The sum of a metric's samples that have all these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    found = (key for key in metrics if re.match(rf"{name}(\{{|$)", key))
    return sum(metrics[key] for key in found if all(each in key for each in wanted))


def _wait_until_idle(port: int) -> dict[str, float]:
    deadline = time.monotonic() + _IDLE_SECONDS
    while True:
        metrics = read_metrics(port)
        if not sum_of(metrics, "kilonova_engine_running") and sum_of(metrics, "kilonova_open_requests") <= 1:
            return metrics
        if time.monotonic() > deadline:
            return metrics
        time.sleep(0.05)


def _directory(model: str) -> Path:
    from kilonova.models.registry import Registry

    return Path(model) if Path(model).is_dir() else Registry({}, home=models_folder()).get(model).directory


def _print(report: dict[str, Any]) -> None:
    title = f"{report['clients']} clients, {report['seconds']:g} s, {report['rounds']} rounds"
    table = Table("", "server", "bare engine", title=title)
    table.add_row("tokens/s", f"{report['server_tokens_per_s']:.0f}", f"{report['bare_tokens_per_s']:.0f}")
    table.add_row("of the bare engine's", f"{report['ratio']:.1%}", "")
    table.add_row(
        "time outside the model's steps", f"{report['server_outside_steps']:.1%}", f"{report['bare_outside_steps']:.1%}"
    )
    table.add_row("event loop, CPU per token", f"{report['loop_us_per_token']:.0f} µs", "")
    console = Console(highlight=False)
    console.print(table)
    console.print(", ".join(f"{count} {outcome}" for outcome, count in sorted(report["outcomes"].items())))
    for what, found in (("lost", report["lost_rows"]), ("leaked", report["leaks"]), ("errors", report["errors"])):
        console.print(f"{what}: {len(found) or 'none'}", *found[:10], sep="\n  ")


if __name__ == "__main__":
    typer.run(main)
