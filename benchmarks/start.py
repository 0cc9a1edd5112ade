"""Time from starting `kilonova serve` to its first answer, and the memory it holds."""

from __future__ import annotations

import http.client
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

BUDGET = {"first_answer_s": 6.0, "peak_mb": 900.0}
CONCURRENT_REQUESTS = 16
QUESTION = "Name three fruits."


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Starts to take the median of.")] = 5,
    model: Annotated[str, typer.Option(help="Name of the model to ask.")] = "amazon.nova-micro-v1:0",
    serve: Annotated[str, typer.Option(help="More arguments for kilonova serve, as one string.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Start the server several times and report medians beside the budget."""
    results = [measure_start(model, serve.split()) for _ in range(rounds)]
    medians = {name: statistics.median(result[name] for result in results) for name in results[0]}
    if as_json:
        print(json.dumps({"rounds": results, "median": medians, "budget": BUDGET}, indent=2))
        return
    table = Table("measure", "median", "least", "most", "budget", title=f"{rounds} starts")
    for name, median in medians.items():
        values = [result[name] for result in results]
        budget = BUDGET.get(name)
        table.add_row(name, *(f"{value:.2f}" for value in (median, min(values), max(values))), str(budget or ""))
    Console().print(table)


def measure_start(model: str, arguments: list[str]) -> dict[str, float]:
    """One start: seconds from spawn to the first 200 of a Converse request, and resident memory in MB (10^6 bytes).

    `after_first_mb` is held after that answer, `after_16_mb` after 16 requests at once, `peak_mb` the most seen.
    Memory is that of the server's whole process tree, sampled every 20 ms.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "kilonova", "serve", "--port", str(port), "--data", data, *arguments]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=log, stderr=log) as server:
            try:
                with sampled_memory(server.pid) as samples:
                    while not converse(port, model, max_tokens=1):
                        if server.poll() is not None:
                            log.seek(0)
                            raise SystemExit(f"kilonova serve stopped with exit code {server.returncode}\n{log.read()}")
                        time.sleep(0.01)
                    first_answer = time.perf_counter() - started
                    after_first = resident_bytes(server.pid)
                    with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
                        answers = pool.map(lambda _: converse(port, model, max_tokens=64), range(CONCURRENT_REQUESTS))
                    if not all(answers):
                        raise SystemExit(f"{CONCURRENT_REQUESTS} requests at once: not all were answered")
                    after_concurrent = resident_bytes(server.pid)
            finally:
                server.terminate()
    return {
        "first_answer_s": first_answer,
        "after_first_mb": after_first / 1e6,
        f"after_{CONCURRENT_REQUESTS}_mb": after_concurrent / 1e6,
        "peak_mb": max(*samples, after_first, after_concurrent) / 1e6,
    }


def converse(port: int, model: str, max_tokens: int) -> bool:
    """Whether the server answered a Converse request; False while it does not listen yet."""
    body = {
        "messages": [{"role": "user", "content": [{"text": QUESTION}]}],
        "inferenceConfig": {"maxTokens": max_tokens},
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", f"/model/{model}/converse", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    except ConnectionError:
        return False
    finally:
        connection.close()
    if response.status != 200:
        raise SystemExit(f"Converse answered {response.status}: {content.decode(errors='replace')}")
    return True


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants."""
    process = psutil.Process(pid)
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


@contextmanager
def sampled_memory(pid: int) -> Iterator[list[int]]:
    """Sample `resident_bytes` on a thread for as long as the block runs."""
    samples: list[int] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            try:
                samples.append(resident_bytes(pid))
            except psutil.NoSuchProcess:
                return

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    typer.run(main)
