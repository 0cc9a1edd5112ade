"""`kilonova chat`: talk to a model in the terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from kilonova.core.errors import InvalidRequest, KilonovaError
from kilonova.core.types import (
    Finished,
    GenerationRequest,
    Message,
    SamplingParams,
    TextBlock,
    TextDelta,
)

if TYPE_CHECKING:
    from kilonova.engine.engine import Engine

app = typer.Typer()

HELP = """/system TEXT  set the system prompt (no text: remove it)
/model NAME   go on with another model, by name or directory
/reset        forget the turns so far
/help         show this
/quit         leave (so does Ctrl-D); Ctrl-C stops an answer"""


class Conversation:
    """A conversation with one model at a time, held in this process.

    Answers go to standard output as they are written; everything else goes to standard error.
    """

    def __init__(self, model: str, sampling: SamplingParams, system: str | None = None) -> None:
        self.system = system
        self._sampling = sampling
        self._turns: list[Message] = []
        self._engine: Engine | None = None
        self.use_model(model)

    def use_model(self, model: str) -> None:
        """Answer with `model`, a registered name or a checkpoint directory, from now on."""
        from kilonova.cli.models import find_directory
        from kilonova.engine.config import EngineConfig
        from kilonova.engine.engine import Engine

        engine = Engine.from_directory(find_directory(model), EngineConfig(max_num_seqs=1))
        self.close()
        self._engine, self._model = engine, model

    def reset(self) -> None:
        """Forget the turns, not the system prompt."""
        self._turns.clear()

    def answer(self, text: str) -> None:
        """Stream the answer to `text` and remember both; Ctrl-C keeps what was written so far."""
        assert self._engine is not None
        system = [Message("system", (TextBlock(self.system),))] if self.system else []
        question = Message("user", (TextBlock(text),))
        request = GenerationRequest(
            model=self._model, messages=(*system, *self._turns, question), sampling=self._sampling
        )
        started = time.perf_counter()
        generation = self._engine.submit(request)
        written: list[str] = []
        try:
            for event in generation:
                if isinstance(event, TextDelta):
                    written.append(event.text)
                    print(event.text, end="", flush=True)
                elif isinstance(event, Finished):
                    print(flush=True)
                    _note(_describe(event))
        except KeyboardInterrupt:
            generation.cancel()
            print(flush=True)
            _note(f"stopped after {time.perf_counter() - started:.1f} s")
        if written:
            self._turns += [question, Message("assistant", (TextBlock("".join(written)),))]

    def close(self) -> None:
        """Let the model go."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A model's name or the directory of a checkpoint.")] = "micro",
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the most likely token.")] = 0.7,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Probability mass to sample from.")] = 0.9,
    seed: Annotated[int | None, typer.Option(help="Makes answers repeatable.")] = None,
) -> None:
    """Talk to a model here, without a server; lines piped in are turns.

    Example: kilonova chat micro --system "Answer in one sentence."
    """
    sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    conversation = Conversation(model, sampling, system)
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401 (gives input() history and line editing)

        _note(f"{model} is ready. /help lists the commands.")
    try:
        while (line := _read_line(interactive)) is not None:
            try:
                if not _obey(line.strip(), conversation):
                    break
            except (KilonovaError, OSError) as error:
                if not interactive:
                    raise
                typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
    finally:
        conversation.close()


def _obey(line: str, conversation: Conversation) -> bool:
    """Do what one line says; False when it says to leave."""
    command, _, argument = line.partition(" ")
    argument = argument.strip()
    if not line:
        pass
    elif not line.startswith("/"):
        conversation.answer(line)
    elif command == "/quit":
        return False
    elif command == "/help":
        _note(HELP)
    elif command == "/reset":
        conversation.reset()
        _note("the turns so far are forgotten")
    elif command == "/system":
        conversation.system = argument or None
        _note("system prompt set" if argument else "system prompt removed")
    elif command == "/model":
        if not argument:
            raise InvalidRequest("/model needs a name or a directory")
        conversation.use_model(argument)
        _note(f"{argument} is ready")
    else:
        raise InvalidRequest(f"no command {command}; /help lists them")
    return True


def _read_line(interactive: bool) -> str | None:
    """The next line of input, None at its end; Ctrl-C in a terminal starts the line anew."""
    if not interactive:
        return sys.stdin.readline() or None
    while True:
        try:
            return input("> ")
        except KeyboardInterrupt:
            print(file=sys.stderr)
        except EOFError:
            print(file=sys.stderr)
            return None


def _describe(finished: Finished) -> str:
    tokens = finished.usage.output_tokens
    decoding = finished.latency - finished.time_to_first_token
    rate = f", {(tokens - 1) / decoding:.1f} tokens/s" if tokens > 1 and decoding > 0 else ""
    reason = "" if finished.stop_reason == "end_turn" else f", {finished.stop_reason}"
    return (
        f"{finished.usage.input_tokens} + {tokens} tokens{rate}, "
        f"first after {finished.time_to_first_token * 1000:.0f} ms{reason}"
    )


def _note(text: str) -> None:
    typer.secho(text, dim=True, err=True)
