"""Keys, usage and what all sections share: names for assistive technology, contrast, narrow screens."""

import re

import pytest
from tests.serve.console.conftest import eventually

CONTRAST = """() => {
    const parse = (name) => {
        const probe = document.createElement("i");
        probe.style.color = `var(--${name})`;
        document.body.append(probe);
        const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number);
        probe.remove();
        const [r, g, b] = parts.slice(0, 3).map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratio = (a, b) => (Math.max(parse(a), parse(b)) + 0.05) / (Math.min(parse(a), parse(b)) + 0.05);
    const pairs = ["page", "surface", "sunken", "hover"].flatMap((back) => [["text", back], ["muted", back]]);
    pairs.push(["accent", "page"], ["accent", "surface"], ["on-accent", "accent"], ["on-accent", "accent-hover"],
        ["danger", "surface"], ["text", "danger-soft"], ["text", "accent-soft"], ["good", "good-soft"]);
    return pairs.map(([a, b]) => [a, b, ratio(a, b)]);
}"""
NAMELESS = """() => [...document.querySelectorAll("button, a, input, select, textarea, [role=tab], summary")]
    .filter((element) => element.checkVisibility())
    .filter((element) => !(element.getAttribute("aria-label") || element.innerText.trim()
        || [...(element.labels ?? [])].some((label) => label.innerText.trim())))
    .map((element) => element.outerHTML)"""
BROKEN_REFERENCES = """() => ["aria-controls", "aria-labelledby", "aria-describedby", "for"]
    .flatMap((name) => [...document.querySelectorAll(`[${name}]`)].map((element) => element.getAttribute(name)))
    .filter((id) => document.querySelectorAll(`#${CSS.escape(id)}`).length !== 1)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_told_apart(family, open_page, scheme):
    page = open_page(family, color_scheme=scheme)
    low = [pair for pair in page.evaluate(CONTRAST) if pair[2] < 4.5]
    assert low == []


def test_every_section_is_named_for_assistive_technology(family, open_page):
    page = open_page(family)
    for number, heading in enumerate(("Chat", "Pictures", "Usage", "Keys"), 1):
        page.keyboard.press(f"Alt+{number}")
        page.get_by_role("heading", name=heading, level=1).wait_for()
        assert page.evaluate(NAMELESS) == []
        assert page.evaluate(BROKEN_REFERENCES) == []
        assert page.locator("h1:visible, .offscreen:is(h1)").count() >= 1
        assert page.get_by_role("link", name=heading).get_attribute("aria-current") == "page"
        assert page.title() == f"{heading} · Kilonova"
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.get_by_role("main").count() == 1
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0


def test_the_keyboard_reaches_everything_in_order(family, open_page):
    page = open_page(family)
    page.evaluate("document.querySelector('a, button, input, select, textarea, [tabindex]').focus()")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    names = []
    for _ in range(14):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.labels?.[0]?.innerText"))
    assert names.index("Model") < names.index("Message") < names.index("System prompt") < names.index("Seed")
    page.get_by_role("tab", name="Settings").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Code").get_attribute("aria-selected") == "true"
    page.keyboard.press("Alt+s")
    assert page.locator("#panel").is_hidden()


def test_narrow_screens_need_no_scrolling_sideways(family, open_page):
    page = open_page(family, viewport={"width": 360, "height": 640})
    for number in (1, 2, 3, 4):
        page.keyboard.press(f"Alt+{number}")
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.keyboard.press("Alt+1")
    assert page.locator("#question").is_visible()
    assert page.get_by_role("button", name="Send").is_visible()


def test_from_the_first_key_to_its_end(open_page, tmp_path):
    from tests.serve.conftest import run_server

    with run_server(tmp_path) as server:
        page = open_page(server, path="/#/keys", ready=".empty")
        page.get_by_role("button", name="Make the first key").click()
        page.keyboard.type("admin")
        page.keyboard.press("Enter")
        kept = page.get_by_role("dialog", name="admin: keep these now")
        kept.wait_for()
        admin = kept.locator('[data-secret="openai_key"]').inner_text()
        assert re.fullmatch(r"sk-[\w-]{40,}", admin)
        page.keyboard.press("Escape")
        page.get_by_role("button", name="admin", exact=True).wait_for()

        page.get_by_role("button", name="New key").click()
        page.keyboard.type("app")
        page.get_by_text("Limits and expiry").click()
        page.get_by_label("Requests a minute").fill("2")
        page.keyboard.press("Enter")
        made = page.get_by_role("dialog", name="app: keep these now")
        key = made.locator('[data-secret="openai_key"]').inner_text()
        page.keyboard.press("Escape")
        row = page.get_by_role("row", name=re.compile("^app"))
        assert "2 requests a minute" in row.inner_text()
        assert key not in page.content()

        # Another person, who has no key yet.
        other = open_page(server, ready=".gate-card")
        assert "This server asks for a key" in other.locator(".gate-card").inner_text()
        assert other.evaluate("document.activeElement.type") == "password"
        other.keyboard.type("sk-wrong")
        other.keyboard.press("Enter")
        other.get_by_text("The server does not take this key.").wait_for()
        other.get_by_label("Key", exact=True).fill(key)
        other.keyboard.press("Enter")
        other.locator("#question").wait_for()
        assert other.evaluate("Object.values(localStorage).join()").count("sk-") == 0
        assert other.evaluate("sessionStorage.getItem('kilonova.key')") == f'"{key}"'
        other.get_by_label("Max tokens").fill("5")
        for number in range(3):
            other.locator("#question").fill("hello")
            other.keyboard.press("Enter")
            eventually(other, f"document.querySelectorAll('.answer:not(.streaming)').length === {number + 1}")
        refused = other.locator(".answer").last.get_by_role("alert")
        assert "Too many requests" in refused.inner_text()
        assert other.get_by_role("button", name=re.compile(r"Try again in \d+ s")).is_disabled()
        other.get_by_role("tab", name="Code").click()
        assert "$KILONOVA_API_KEY" in other.locator(".code-panel pre").first.inner_text()
        assert "sk-" not in other.locator(".code-panel").inner_text()
        other.keyboard.press("Alt+4")
        assert "Managing keys takes a key with the operation keys.manage" in other.locator(".page:visible").inner_text()

        page.keyboard.press("Alt+3")
        page.get_by_role("radio", name="Key").check()
        used = page.get_by_role("row", name=re.compile("^app"))
        used.wait_for()
        assert "2 refused" not in page.locator(".figures").inner_text()
        assert "1 refused" in page.locator(".figures").inner_text()
        assert page.locator(".chart .bar rect.series-0").count() == 1
        page.get_by_role("radio", name="Requests").check()
        assert page.locator(".chart .bar rect.series-0").count() == 1

        page.keyboard.press("Alt+4")
        page.get_by_role("button", name="Revoke app").click()
        page.get_by_role("button", name="Revoke it for good").click()
        page.get_by_role("row", name=re.compile("^app.*revoked")).wait_for()
        other.keyboard.press("Alt+1")
        other.locator("#question").fill("hello")
        other.keyboard.press("Enter")
        other.locator(".gate-card").wait_for()
        # The page still knows the one who manages, also after a reload; a new tab does not.
        page.reload()
        page.get_by_role("row", name=re.compile("^admin")).wait_for()
