"""Answers are shown as text, whatever they hold."""

import pytest
from tests.serve.console.conftest import eventually

from kilonova.core.types import Finished, PromptProcessed, TextDelta, Usage

RENDER = """async (text) => {
    const { markdown } = await import("/console/markdown/index.js");
    const element = document.createElement("div");
    element.append(...markdown(text));
    for (const head of element.querySelectorAll(".code-head")) head.remove();
    return element.innerHTML;
}"""
LINK = 'target="_blank" rel="noopener noreferrer"'
CODE = '<div class="code-block"><pre tabindex="0" role="region" aria-label="Code"><code>{}</code></pre></div>'

CASES = {
    "one\ntwo\n\nthree": "<p>one<br>two</p><p>three</p>",
    "**bold** and *italic* and _both_ `a*b*`": (
        "<p><strong>bold</strong> and <em>italic</em> and <em>both</em> <code>a*b*</code></p>"
    ),
    "**bold *inside* it**": "<p><strong>bold <em>inside</em> it</strong></p>",
    "2 * 3 * 4, snake_case_name, a ** b": "<p>2 * 3 * 4, snake_case_name, a ** b</p>",
    "**unfinished and `too": "<p>**unfinished and `too</p>",
    r"\*not italic\*": "<p>*not italic*</p>",
    "# One\n## Two #\n####### seven": "<h3>One</h3><h4>Two</h4><p>####### seven</p>",
    "- a\n- b\n  - c\n  - d\n- e": "<ul><li>a</li><li>b<ul><li>c</li><li>d</li></ul></li><li>e</li></ul>",
    "3. a\n4. b": '<ol start="3"><li>a</li><li>b</li></ol>',
    "1. a\n\n   more\n2. b": "<ol><li><p>a</p><p>more</p></li><li><p>b</p></li></ol>",
    "before\n- a\nafter\n\nend": "<p>before</p><ul><li>a<br>after</li></ul><p>end</p>",
    "> a\n> > b": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>",
    "```python\nif a < b:\n    <b>x</b>\n```\nafter": CODE.format("if a &lt; b:\n    &lt;b&gt;x&lt;/b&gt;")
    + "<p>after</p>",
    "```\nunfinished\n\n# code": CODE.format("unfinished\n\n# code"),
    "a\n\n---\n\nb": "<p>a</p><hr><p>b</p>",
    "| a | b |\n|---|:-:|\n| 1 | `2` |": (
        '<div class="table-scroll" tabindex="0" role="region" aria-label="Table"><table>'
        '<thead><tr><th scope="col">a</th><th scope="col">b</th></tr>'
        "</thead>"
        "<tbody><tr><td>1</td><td><code>2</code></td></tr></tbody></table></div>"
    ),
    "[text](https://example.com/a_b)": f'<p><a href="https://example.com/a_b" {LINK}>text</a></p>',
    "see https://example.com/a_b.": f'<p>see <a href="https://example.com/a_b" {LINK}>https://example.com/a_b</a>.</p>',
    "[x](javascript:alert(1))": "<p>[x](javascript:alert(1))</p>",
    "[x](data:text/html,hello) [y](//evil.example) [z](/console/)": (
        "<p>[x](data:text/html,hello) [y](//evil.example) [z](/console/)</p>"
    ),
    "![picture](https://evil.example/a.png)": f'<p>!<a href="https://evil.example/a.png" {LINK}>picture</a></p>',
    "<script>alert(1)</script>": "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>",
    '<img src=x onerror="alert(1)"> &amp; <b>': '<p>&lt;img src=x onerror="alert(1)"&gt; &amp;amp; &lt;b&gt;</p>',
    '[x](https://a.example/" onclick="alert(1))': f'<p><a href="https://a.example/%22" {LINK}>x</a>)</p>',
    "[<b>x</b>](https://a.example)": f'<p><a href="https://a.example/" {LINK}>&lt;b&gt;x&lt;/b&gt;</a></p>',
}


@pytest.fixture
def page(family, open_page):
    return open_page(family)


def test_markdown_is_shown_and_markup_is_not(page):
    for text, expected in CASES.items():
        assert page.evaluate(RENDER, text) == expected, text


LONG = [
    *(each * 20_000 for each in "*[`_~"),
    *(each * 5_000 for each in ("*a ", "> ", "- ", "```\n", "![", "<a>", "h", "\\")),
    "(" * 9_000 + "[](" * 300,
    "|-" * 5_000 + "\n" + "|-" * 5_000,
    "#" * 9_000 + " " * 9_000,
    "_a" * 4_900,
    "[a](" * 2_400,
    "- a\n" * 5_000,
    "https://a" + "." * 9_000,
]


def test_no_text_takes_long(page):
    for text in LONG:
        milliseconds = page.evaluate(
            """async (text) => {
                const { markdown } = await import("/console/markdown/index.js");
                const start = performance.now();
                markdown(text);
                return performance.now() - start;
            }""",
            text,
        )
        assert milliseconds < 5000, text[:20]


def test_html_in_an_answer_stays_text(open_page, play):
    attack = (
        '<script>window.hacked = 1</script><img src="https://evil.example/x.png" onerror="window.hacked = 2">'
        '<iframe src="https://evil.example"></iframe> ![x](https://evil.example/y.png) '
        "[click](javascript:window.hacked=3)"
    )
    server, _ = play(
        lambda request: [PromptProcessed(5), TextDelta(attack), Finished("end_turn", Usage(5, 3), 0.1, 0.2)]
    )
    page = open_page(server)
    for _ in range(2):
        page.locator("#question").fill(attack)
        page.keyboard.press("Enter")
        page.wait_for_selector(".answer:not(.streaming)")
        eventually(page, "!document.querySelector('.answer.streaming')")
    page.reload()
    page.wait_for_selector(".answer")
    for place in (".prose", ".question", ".history"):
        assert "<script>window.hacked = 1</script>" in page.locator(place).first.inner_text()
    assert page.locator("main script, main img, main iframe, .history script, [onerror]").count() == 0
    assert page.locator('a[href^="javascript:"]').count() == 0
    assert page.evaluate("window.hacked") is None
