"""The console as a new user meets it: by keyboard, in a real browser, against a real server."""

import itertools
import json
import subprocess
import sys
import time
import urllib.request
from decimal import Decimal

import pytest
from tests.serve.console.conftest import eventually

DONE = ".answer:not(.streaming)"


def ask(page, text):
    """Sends a message by keyboard; the answer's element."""
    answers = page.locator(".answer")
    count = answers.count()
    page.locator("#question").focus()
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    answers.nth(count).wait_for()
    return answers.nth(count)


def wait_until_done(page, answer):
    eventually(page, "!document.querySelector('.answer.streaming')")
    return answer.locator(".prose").inner_text()


def fact(answer, name):
    found = answer.locator(f'[data-fact="{name}"] dd')
    return found.inner_text() if found.count() else None


def tokens(page):
    return int(page.locator(".totals").inner_text().split(" token")[0].replace(",", ""))


def watch_lengths(page):
    """Notes each length that the last answer's text had, from now on."""
    page.evaluate(
        """() => {
            window.lengths = [];
            new MutationObserver(() => {
                const answers = document.querySelectorAll(".answer .prose");
                const last = answers[answers.length - 1];
                if (last && !last.querySelector(".waiting")) window.lengths.push(last.innerText.length);
            }).observe(document.querySelector(".thread"), { childList: true, subtree: true, characterData: true });
        }"""
    )


def test_a_new_user_talks_to_a_model(family, open_page):
    before = usage(family)
    page = open_page(family)
    assert page.evaluate("document.activeElement.id") == "question"
    assert tokens(page) == 0

    page.get_by_label("Model", exact=True).select_option("tiny")
    page.get_by_label("Max tokens").fill("400")
    page.get_by_label("Seed").fill("1")
    watch_lengths(page)
    first = ask(page, "hello")
    text = wait_until_done(page, first)
    lengths = page.evaluate("window.lengths")
    assert any(0 < length < len(text) for length in lengths), lengths
    # What turns out to be Markdown loses its marks.
    assert all(later > earlier - 10 for earlier, later in itertools.pairwise(lengths)), lengths
    output = int(fact(first, "output").removesuffix(" out"))
    assert output > 30
    assert fact(first, "cost") is None
    assert float(fact(first, "first-token").split()[2]) > 0
    assert (fact(first, "end") == "stopped at max tokens") == (output == 400)
    after_first = tokens(page)
    assert after_first == output + int(fact(first, "input").split()[0])

    # Another model, chosen by keyboard, which has a price.
    page.get_by_label("Model", exact=True).focus()
    page.keyboard.type("Kilonova")
    page.get_by_label("Max tokens").fill("20")
    page.get_by_label("Temperature").fill("0")
    page.keyboard.press("Alt+n")
    assert tokens(page) == 0
    second = ask(page, "What do cats eat?")
    text = wait_until_done(page, second)
    assert second.locator(".speaker").inner_text() == "Kilonova Micro"
    assert fact(second, "cost").startswith("$0.0000")
    after_second = tokens(page)
    assert after_second > 0

    # The counters are the ledger's.
    after = usage(family)
    assert sum(after[model]["tokens"] - before[model]["tokens"] for model in after) == after_first + after_second
    cost = page.evaluate(
        "async () => (await import('/console/chat/conversations.js')).currentConversation().turns[0].answer.cost"
    )
    assert Decimal(str(cost)) == pytest.approx(after["micro"]["price"] - before["micro"]["price"])

    page.reload()
    page.wait_for_selector(DONE)
    assert page.locator(".answer .prose").inner_text() == text
    assert page.locator(".question").inner_text() == "What do cats eat?"
    assert page.get_by_label("Model", exact=True).input_value() == "micro"
    assert tokens(page) == after_second
    page.get_by_role("navigation", name="Conversations").get_by_role("button", name="hello", exact=True).click()
    assert tokens(page) == after_first


def usage(server):
    with urllib.request.urlopen(f"{server.url}/kilonova/usage?by=model", timeout=30) as response:
        rows = json.load(response)["rows"]
    counted = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    found = {
        row["model"]: {"tokens": sum(row[name] for name in counted), "price": Decimal(row["price_usd"])} for row in rows
    }
    nothing = {"tokens": 0, "price": Decimal(0)}
    return {"tiny": nothing, "micro": nothing, **found}


def test_the_code_asks_the_same(family, open_page):
    page = open_page(family)
    page.get_by_label("System prompt").fill('Answer in one word. Don\'t "explain".')
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Max tokens").fill("12")
    answer = ask(page, 'What do cats eat? It\'s \\ "quoted" & $HOME `x`, naïve 日本.')
    text = wait_until_done(page, answer)
    page.get_by_role("tab", name="Code").click()
    assert page.get_by_role("heading", name="What you just asked").is_visible()

    def code(language):
        page.get_by_role("tab", name=language).click()
        panel = page.locator(".code-panel [role=tabpanel]:not([hidden])")
        panel.get_by_role("button", name="Copy").click()
        eventually(page, "document.body.innerText.includes('Copied')")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == panel.locator("pre").text_content()
        return copied

    def run(*command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # With temperature 0 they say what the page showed.
    events = [line.removeprefix("data: ") for line in run("bash", "-c", code("curl")).splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks).strip() == text.strip()
    for language in ("openai", "boto3"):
        assert run(sys.executable, "-c", code(language)).strip() == text.strip(), language


def test_conversations_are_kept_apart_and_deleted(family, open_page):
    page = open_page(family)
    page.get_by_label("Max tokens").fill("4")
    for question in ("first", "second"):
        page.keyboard.press("Alt+n")
        wait_until_done(page, ask(page, question))
    conversations = page.get_by_role("navigation", name="Conversations")
    assert conversations.locator("button.open").all_inner_texts() == ["second", "first"]
    page.get_by_role("button", name="Delete the conversation: second").click()
    assert conversations.locator("button.open").all_inner_texts() == ["first"]
    assert page.locator(".welcome").is_visible()
    assert page.evaluate("Object.keys(localStorage).filter((name) => name.includes('conversation')).length") == 1


def test_asking_again_counts_both_answers(family, open_page):
    page = open_page(family)
    page.get_by_label("Max tokens").fill("5")
    answer = ask(page, "hello")
    wait_until_done(page, answer)
    once, before = tokens(page), page.locator(".totals").inner_text()
    answer.get_by_role("button", name="Ask again").click()
    eventually(page, f"document.querySelector('.totals').innerText !== '{before}'")
    wait_until_done(page, answer)
    assert page.locator(".answer").count() == 1
    assert tokens(page) > once


def test_a_server_that_goes_and_comes_back(family, open_page):
    page = open_page(family)
    page.get_by_label("Max tokens").fill("5")
    page.context.set_offline(True)
    answer = ask(page, "hello")
    assert "The server does not answer" in answer.get_by_role("alert").inner_text()
    assert page.locator("#banner").is_visible()
    assert answer.get_by_role("button", name="Copy").is_hidden()
    page.context.set_offline(False)
    page.locator("#banner").wait_for(state="hidden")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector('.answer [data-fact="output"]')
    wait_until_done(page, page.locator(".answer"))
    assert page.locator(".answer").get_by_role("alert").count() == 0


def test_the_choice_of_colours_is_kept(family, open_page):
    page = open_page(family, color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Colours: as the system").click()
    light = page.evaluate(background)
    assert light != dark
    page.reload()
    page.wait_for_selector("#question")
    assert page.evaluate(background) == light


def test_stopping_keeps_what_was_said(open_page, play):
    from kilonova.core.types import Finished, PromptProcessed, TextDelta, Usage

    words = [each for number in range(100) for each in (TextDelta(f"word{number} "), 0.1)]
    server, engine = play(lambda request: [PromptProcessed(5), *words, Finished("end_turn", Usage(5, 100), 0.1, 10.0)])
    page = open_page(server)
    watch_lengths(page)
    answer = ask(page, "hello")
    eventually(page, "document.querySelector('.answer .prose').innerText.includes('word9')")
    page.keyboard.press("Escape")
    text = wait_until_done(page, answer)
    assert "word9" in text
    assert len({length for length in page.evaluate("window.lengths") if 0 < length < len(text)}) > 2
    assert "word99" not in text
    assert fact(answer, "end").startswith("stopped after")
    deadline = time.monotonic() + 10
    while engine.running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not engine.running
    assert page.get_by_role("button", name="Send").is_visible()
    page.reload()
    page.wait_for_selector(DONE)
    assert page.locator(".answer .prose").inner_text() == text


def test_what_the_server_refuses_is_told_where_it_happens(open_page, play):
    from kilonova.core.errors import ContextLengthExceeded, EngineError, Throttled
    from kilonova.core.types import Finished, PromptProcessed, TextDelta, Usage

    answers = [
        [Throttled("5 requests a minute are allowed", retry_after=2)],
        [PromptProcessed(5), TextDelta("fine"), Finished("end_turn", Usage(5, 1), 0.1, 0.2)],
        [ContextLengthExceeded("600 tokens are more than 512")],
        [PromptProcessed(5), TextDelta("half an"), EngineError("the step failed")],
    ]
    server, engine = play(lambda request: answers[len(engine.requests) - 1])
    page = open_page(server)
    answer = ask(page, "one")
    problem = answer.get_by_role("alert")
    assert "Too many requests 5 requests a minute are allowed" in " ".join(problem.inner_text().split())
    again = answer.get_by_role("button", name="Try again")
    assert again.is_disabled()
    assert "in" in again.inner_text()
    eventually(page, "!document.querySelector('.problem button').disabled")
    again.click()
    eventually(page, "document.querySelector('.answer .prose').innerText === 'fine'")
    assert problem.count() == 0

    too_long = ask(page, "two").get_by_role("alert")
    assert "the model's context 600 tokens are more than 512" in " ".join(too_long.inner_text().split())
    # What was never answered is not part of what is sent next.
    broken = ask(page, "three")
    broken.get_by_role("alert").wait_for()
    assert "half an" in broken.inner_text()
    sent = [[block.text for block in message.content] for message in engine.requests[-1].messages]
    assert sent == [["one"], ["fine"], ["three"]]
