"""Takes the pictures in docs/console.md, from a server of the shipped Micro with invented keys and usage.

python scripts/console_screenshots.py                    # needs the dev extra, and Chromium
python scripts/console_screenshots.py --canvas FOLDER    # with Pictures, which takes a model that makes some
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from kilonova.data.world.render import render
from kilonova.data.world.sampling import sample_scene
from kilonova.serve.call import KeyLimits
from kilonova.serve.database import Database, default_url
from kilonova.serve.keys.master import FILE_NAME, MasterKey
from kilonova.serve.keys.operations import OPERATIONS
from kilonova.serve.keys.store import Key, KeyStore
from kilonova.serve.ledger.tables import calls

SIZE = {"width": 1360, "height": 850}
QUESTIONS = ("What do bees make?", "Where do fish live?", "What is the capital of France?")
DAY = 86_400_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs")
    parser.add_argument("--port", type=int, default=8642)
    parser.add_argument("--canvas", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        key = invent(Path(directory))
        command = [str(Path(sys.executable).with_name("kilonova")), "serve", "--data", directory]
        if arguments.canvas is not None:
            command += ["--model", f"amazon.nova-canvas-v1:0={arguments.canvas}"]
        server = subprocess.Popen([*command, "--port", str(arguments.port)], stdout=subprocess.DEVNULL)
        try:
            take(f"http://127.0.0.1:{arguments.port}", key, arguments.output, pictures=arguments.canvas is not None)
        finally:
            server.terminate()
            server.wait()


def invent(data: Path) -> str:
    """Keys and a month of usage; the key of whoever manages the others."""
    database = Database(default_url(data))
    database.migrate()
    store, master = KeyStore(database), MasterKey.open(data / FILE_NAME)
    _, admin = store.create(master, "admin", operations=OPERATIONS)
    used = [
        store.create(master, "support-bot", models=["micro"], limits=KeyLimits(requests_per_minute=120))[0],
        store.create(
            master,
            "notebook",
            limits=KeyLimits(budget_usd=Decimal(5)),
            expires_at=datetime.now(UTC) + timedelta(days=90),
        )[0],
        store.create(master, "nightly-batch", limits=KeyLimits(tokens_per_day=2_000_000))[0],
    ]
    old, _ = store.create(master, "trial")
    store.revoke(old.id)
    chance = random.Random(5)
    today = int(time.time() * 1000)
    rows = [
        call(chance, key, today - day * DAY - chance.randrange(DAY // 4))
        for day in range(30)
        for index, key in enumerate(used)
        for _ in range(int((34 - day) * (0.5 + chance.random()) * (1, 0.4, 0.6)[index]))
    ]
    with database.write() as connection:
        connection.execute(calls.insert(), rows)
    database.close()
    return admin.openai_key


def call(chance: random.Random, key: Key, started: int) -> dict[str, Any]:
    """A call as the ledger would have it."""
    status = chance.choices(("finished", "cancelled", "refused"), (96, 3, 1))[0]
    tokens = [chance.randrange(200, 3000), chance.randrange(20, 600), chance.choice((0, 0, 512, 1024))]
    if status == "refused":
        tokens = [0, 0, 0]
    return {
        "id": f"{chance.getrandbits(128):032x}",
        "server_id": "invented",
        "started_at": started,
        "key_id": key.id,
        "key_name": key.name,
        "protocol": "openai",
        "operation": "chat.completions",
        "model": "micro",
        "service_tier": "default",
        "status": status,
        "http_status": 429 if status == "refused" else 200,
        "error": "rate_limit_exceeded" if status == "refused" else "",
        "input_tokens": tokens[0],
        "output_tokens": tokens[1],
        "cache_read_tokens": tokens[2],
        "cache_write_tokens": 0,
        "images": 0,
        "video_seconds": 0,
        "time_to_first_token": None if status == "refused" else chance.uniform(0.02, 0.2),
        "latency": 1.0,
        "stop_reason": "end_turn",
        "price": tokens[0] * 35_000 + tokens[1] * 140_000 + tokens[2] * 8_750,
        "price_entry": "amazon.nova-micro-v1:0",
        "request_metadata": {},
    }


def take(url: str, key: str, output: Path, *, pictures: bool) -> None:
    """The four pictures, and that of Pictures."""
    wait_for(url)
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=executable, args=sandbox, timeout=120_000)
        page = open_console(browser, url, key, "light")
        converse(page)
        page.get_by_role("tab", name="Code").click()
        page.get_by_role("tab", name="openai").click()
        save(page, output / "console-chat.png")
        page.emulate_media(color_scheme="dark")
        page.get_by_role("tab", name="Settings").click()
        save(page, output / "console-chat-dark.png")
        page.emulate_media(color_scheme="light")
        if pictures:
            page.keyboard.press("Alt+2")
            paint(page)
            save(page, output / "console-pictures.png")
        page.keyboard.press("Alt+3")
        page.get_by_role("radio", name="Key").check()
        page.get_by_role("rowheader", name="support-bot").wait_for()
        save(page, output / "console-usage.png")
        page.emulate_media(color_scheme="dark")
        page.keyboard.press("Alt+4")
        page.get_by_role("rowheader", name="support-bot").wait_for()
        save(page, output / "console-keys-dark.png")
        browser.close()


def wait_for(url: str) -> None:
    """Until the server is ready."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health/ready"):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def open_console(browser: Browser, url: str, key: str, scheme: Any) -> Page:
    context = browser.new_context(viewport=SIZE, color_scheme=scheme, reduced_motion="reduce")
    context.set_default_timeout(60_000)
    context.add_init_script(f"sessionStorage.setItem('kilonova.key', '\"{key}\"')")
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#question")
    return page


def converse(page: Page) -> None:
    page.get_by_label("System prompt").fill("You are a helpful assistant.")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Seed").fill("1")
    for number, question in enumerate(QUESTIONS):
        page.locator("#question").fill(question)
        page.keyboard.press("Enter")
        page.locator(".answer:not(.streaming)").nth(number).wait_for()


def paint(page: Page) -> None:
    """A scene in which what stands in the middle is to be replaced."""
    scene = render(sample_scene(31), 512).image[..., :3]
    file = io.BytesIO()
    Image.fromarray(scene).save(file, "PNG")
    page.get_by_role("radio", name="Replace").check()
    slot = page.get_by_role("group", name="Picture", exact=True)
    slot.locator("input[type=file]").set_input_files(
        {"name": "scene.png", "mimeType": "image/png", "buffer": file.getvalue()}
    )
    page.locator(".mask-stage canvas").wait_for()
    box = page.locator(".mask-stage canvas").bounding_box()
    assert box is not None
    places = [(0.38, 0.72), (0.72, 0.72), (0.72, 0.82), (0.4, 0.82), (0.45, 0.93), (0.66, 0.93)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()
    page.locator("#prompt").fill("a little red car")
    page.get_by_role("spinbutton", name="Seed").fill("12")


def save(page: Page, path: Path) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    with Image.open(io.BytesIO(page.screenshot())) as image:
        # A third of the bytes, and hardly another picture: the page has few colours.
        few = image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
