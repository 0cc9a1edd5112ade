"""A `kilonova serve` process for the time of a measurement."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kilonova.core.errors import KilonovaError

START_SECONDS = 120.0
LOG_LINES = 20


@contextmanager
def running_server(directory: Path, name: str, max_num_seqs: int) -> Iterator[str]:
    """Serve the checkpoint `directory` as `name` on a free port of this machine, and yield the server's URL.

    Raises KilonovaError with the server's own words when it does not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "kilonova", "serve", "--port", str(port), "--data", data]
        command += ["--model", f"{name}={directory}", "--max-num-seqs", str(max_num_seqs)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as server:
            try:
                stop = time.monotonic() + START_SECONDS
                while not _answers(url):
                    if server.poll() is not None or time.monotonic() > stop:
                        log.seek(0)
                        last = log.read().strip().splitlines()[-LOG_LINES:]
                        raise KilonovaError("\n".join(["kilonova serve did not start; its last lines:", *last]))
                    time.sleep(0.05)
                yield url
            finally:
                server.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False
