"""A real Chromium, driven as a person would; what its pages ask for and complain of is watched."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.serve.conftest import Server, run_server

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDE = {"width": 1440, "height": 900}


def eventually(page: Any, expression: str, seconds: float = 60) -> None:
    """Waits until a JavaScript expression holds; Playwright's own way evaluates strings, which the page forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.05)


# Not for longer than a module: Playwright keeps an event loop in the thread, beside which no other can run.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; tests that need it are skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if executable is None:
        pytest.skip(f"there is no Chromium: {', '.join(CHROMIUMS)}")
    with api.sync_playwright() as playwright:
        # Chromium has no sandbox for the superuser, as whom containers run.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=executable, args=arguments, timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a server's console as a new user; at the end, nothing was asked of others and nothing went wrong."""
    contexts: list[Any] = []
    complaints: list[str] = []
    foreign: list[str] = []

    def watch(page: Any, origin: str) -> None:
        def on_request(request: Any) -> None:
            at = urlsplit(request.url)
            if at.scheme not in ("data", "blob") and f"{at.scheme}://{at.netloc}" != origin:
                foreign.append(request.url)

        def on_console(message: Any) -> None:
            # A refusal that the page shows is in the console too, whatever the page does.
            if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
                complaints.append(message.text)

        page.on("request", on_request)
        page.on("console", on_console)
        page.on("pageerror", lambda error: complaints.append(str(error)))

    def open_page(server: Server, *, path: str = "/", ready: str = "#question", **options: Any) -> Any:
        context = browser.new_context(
            viewport=options.pop("viewport", WIDE), permissions=["clipboard-read", "clipboard-write"], **options
        )
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        watch(page, server.url)
        page.goto(server.url + path)
        page.wait_for_selector(ready)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert foreign == []
    assert complaints == []


@pytest.fixture(scope="package")
def family(tiny_micro_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the random model, `tiny`, and of the shipped models, which asks for no key."""
    with run_server(tmp_path_factory.mktemp("family"), "--model", f"tiny={tiny_micro_directory}") as running:
        yield running


@pytest.fixture(scope="package")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of the shipped models that asks for a key; `admin` is one that may do everything."""
    from kilonova.serve.database import Database, default_url
    from kilonova.serve.keys.master import FILE_NAME, MasterKey
    from kilonova.serve.keys.operations import OPERATIONS
    from kilonova.serve.keys.store import KeyStore

    directory = tmp_path_factory.mktemp("keyed")
    data = directory / "data"
    data.mkdir()
    database = Database(default_url(data))
    database.migrate()
    _, secrets = KeyStore(database).create(MasterKey.open(data / FILE_NAME), "admin", operations=OPERATIONS)
    database.close()
    with run_server(directory) as running:
        running.admin = secrets.openai_key
        yield running
