"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def find_binaries() -> Path | None:
    """The directory of `initdb` and `postgres`, which Debian does not put on the path."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    on_path = shutil.which("postgres")
    candidates = [*reversed(installed), *([] if on_path is None else [Path(on_path).parent])]
    return next((path for path in candidates if (path / "initdb").exists()), None)


@contextlib.contextmanager
def run_postgres() -> Iterator[Callable[[], str]]:
    """Starts a server, and yields a function that makes an empty database and returns its URL."""
    psycopg = pytest.importorskip("psycopg")
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    with contextlib.ExitStack() as stack:
        # Not among pytest's directories: those are root's alone, and PostgreSQL refuses to be root.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kilonova-postgres-")))
        owner = _other_user() if os.geteuid() == 0 else None
        as_owner = {} if owner is None else {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        if owner is not None:
            os.chown(directory, owner.pw_uid, owner.pw_gid)
        password = directory / "password"
        password.write_text("pass:word/1")
        password.chmod(0o644)
        subprocess.run(
            [
                *(binaries / "initdb", "-D", directory / "data", "-U", "tester", "--pwfile", password, "--no-sync"),
                *("-A", "scram-sha-256", "-E", "UTF8", "--locale", "C"),
            ],
            check=True,
            capture_output=True,
            cwd=directory,
            **as_owner,
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = stack.enter_context((directory / "log").open("wb"))
        server = subprocess.Popen(
            [binaries / "postgres", "-D", directory / "data", "-p", str(port), "-k", directory, "-F"],
            stdout=log,
            stderr=log,
            cwd=directory,
            **as_owner,
        )
        base = f"postgresql://tester:pass%3Aword%2F1@127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    psycopg.connect(f"{base}/postgres", connect_timeout=5).close()
                    break
                except psycopg.OperationalError:
                    assert server.poll() is None, (directory / "log").read_text()
                    assert time.monotonic() < deadline, (directory / "log").read_text()
                    time.sleep(0.1)

            def new_database() -> str:
                name = f"test_{uuid.uuid4().hex}"
                with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE {name}")
                return f"{base}/{name}"

            yield new_database
        finally:
            server.send_signal(signal.SIGINT)  # Does not wait for its clients.
            server.wait(timeout=30)


def _other_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("PostgreSQL refuses to run as root, and there is no other user to run it as")
