"""`kilonova chat`: a scripted conversation, its commands, and what Ctrl-C does."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilonova.cli.chat import Conversation, app
from kilonova.core.errors import ModelNotFound
from kilonova.core.types import Message, SamplingParams, TextBlock
from kilonova.text.tokenizer import Tokenizer

KILONOVA = str(Path(sys.executable).with_name("kilonova"))
GREEDY = SamplingParams(max_tokens=8, temperature=0)


def turn(role: str, text: str) -> Message:
    return Message(role, (TextBlock(text),))


def input_tokens(notes: str) -> list[int]:
    """The input tokens of each turn, from the line shown after it."""
    return [int(count) for count in re.findall(r"^(\d+) \+ \d+ tokens", notes, re.MULTILINE)]


def test_scripted_conversation_carries_turns_system_prompt_and_reset(tiny_micro_directory: Path) -> None:
    lines = ("hello", "hello", "/system Be brief.", "/reset", "hello", "/quit", "never asked")

    result = subprocess.run(
        [KILONOVA, "chat", str(tiny_micro_directory), "--temperature", "0", "--max-tokens", "8"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    counts = input_tokens(result.stderr)
    tokenizer = Tokenizer.from_directory(tiny_micro_directory)
    assert len(counts) == 3
    assert counts[0] == len(tokenizer.encode_chat([turn("user", "hello")]))
    assert counts[1] > counts[0]
    assert counts[2] == len(tokenizer.encode_chat([turn("system", "Be brief."), turn("user", "hello")]))
    assert result.stdout.strip()
    assert "tokens" not in result.stdout


def test_shows_tokens_and_rate_after_a_turn(tiny_micro_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conversation = Conversation(str(tiny_micro_directory), GREEDY)
    conversation.answer("hello")
    conversation.close()

    assert re.search(r"\d+ \+ 8 tokens, [\d.]+ tokens/s, first after \d+ ms, max_tokens", capsys.readouterr().err)


def test_an_answer_is_part_of_the_next_request(tiny_micro_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conversation = Conversation(str(tiny_micro_directory), GREEDY)
    conversation.answer("hello")
    answer = capsys.readouterr().out.removesuffix("\n")
    conversation.answer("and now?")
    conversation.close()

    turns = [turn("user", "hello"), turn("assistant", answer), turn("user", "and now?")]
    expected = len(Tokenizer.from_directory(tiny_micro_directory).encode_chat(turns))
    assert input_tokens(capsys.readouterr().err) == [expected]


def test_interrupt_stops_the_answer_and_keeps_the_conversation(
    tiny_micro_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class InterruptingOutput(io.StringIO):
        def write(self, text: str) -> int:
            written = super().write(text)
            if len(self.getvalue()) > 3 and text != "\n":
                signal.raise_signal(signal.SIGINT)
            return written

    conversation = Conversation(str(tiny_micro_directory), SamplingParams(max_tokens=200, temperature=0))
    output = InterruptingOutput()
    # A shell that starts the tests in the background has them ignore it.
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", output)
            conversation.answer("hello")
    finally:
        signal.signal(signal.SIGINT, earlier)
    stopped = output.getvalue()
    assert "stopped after" in capsys.readouterr().err

    conversation.answer("hello")
    conversation.close()
    captured = capsys.readouterr()
    assert len(captured.out) > len(stopped)
    assert len(input_tokens(captured.err)) == 1


def test_commands(tiny_micro_directory: Path) -> None:
    lines = "/help\n/system\n/nonsense\n"

    result = CliRunner().invoke(app, [str(tiny_micro_directory)], input=lines)

    assert "/reset" in result.stderr
    assert "system prompt removed" in result.stderr
    assert "no command /nonsense" in str(result.exception)


def test_model_command_switches(tiny_micro_directory: Path) -> None:
    lines = f"/model {tiny_micro_directory}\nhello\n"

    result = CliRunner().invoke(
        app, [str(tiny_micro_directory), "--max-tokens", "4"], input=lines, catch_exceptions=False
    )

    assert f"{tiny_micro_directory} is ready" in result.stderr
    assert len(input_tokens(result.stderr)) == 1


def test_unknown_model_is_refused() -> None:
    result = CliRunner().invoke(app, ["no-such-model"], input="hello\n")

    assert isinstance(result.exception, ModelNotFound)
