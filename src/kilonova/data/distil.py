"""Conversations whose answers a teacher gives through its service: sequence-level distillation (arXiv 1606.07947)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from kilonova.core.errors import ConfigError, DataError
from kilonova.core.progress import ProgressReporter
from kilonova.data.sources import read_rows

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Answer:
    """What a teacher said, and whether it came to its end by itself."""

    text: str
    complete: bool


class TeacherUnavailable(DataError):
    """The teacher's service refuses every request alike: asking it for the other prompts is of no use."""


class PromptRefused(Exception):
    """The service gave no answer to one prompt, for the reason told."""


Teacher = Callable[[Messages], Answer]


@dataclass(frozen=True)
class DistilReport:
    """How many answers were written, were there from before, or failed: cut off at the most tokens, or refused."""

    written: int
    present: int
    truncated: int
    refused: int
    last_refusal: str | None = None


def distil(
    prompts: Path, output: Path, teacher: Teacher, *, name: str, concurrency: int = 8, limit: int | None = None
) -> DistilReport:
    """Ask `teacher` for an answer to each prompt of a `.jsonl` file and append the conversations to `output`.

    A row of `prompts` has a `prompt` or `messages`, of which those after the user's last turn are left out. A row of
    `output` has `messages`, as supervised fine-tuning reads them, and who answered (`teacher`: `name`). Prompts that
    `output` answers already are not asked again, so an interrupted run goes on where it was. Answers that are cut off
    are not written: a student would learn to stop there. Raises TeacherUnavailable when the service refuses all.
    """
    present = _answered(output)
    wanted: dict[str, Messages] = {}
    for row in read_rows(prompts):
        messages = _prompt(row, prompts)
        wanted.setdefault(_key(messages), messages)
        if limit is not None and len(wanted) >= limit:
            break
    todo = [(key, messages) for key, messages in wanted.items() if key not in present]
    written = truncated = refused = 0
    last_refusal: str | None = None
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a", encoding="utf-8") as file, ProgressReporter(f"ask {name}: prompts", len(todo)) as progress:
        for done, ((key, messages), future) in enumerate(_ask(teacher, todo, concurrency), start=1):
            try:
                answer = future.result()
            except PromptRefused as error:
                refused, last_refusal = refused + 1, str(error)
                if refused == done >= concurrency:
                    raise TeacherUnavailable(f"the teacher answered none of {done} prompts: {error}") from error
            else:
                truncated += not answer.complete
                if answer.complete:
                    turns = [*messages, {"role": "assistant", "content": answer.text}]
                    row = {"messages": turns, "teacher": name, "prompt_id": key}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    file.flush()
                    written += 1
            progress.update(done, f"{written} written")
    return DistilReport(written, len(wanted) - len(todo), truncated, refused, last_refusal)


def openai_teacher(
    endpoint: str, model: str, *, max_tokens: int, temperature: float, retries: int = 5, timeout: float = 300.0
) -> Teacher:
    """A model behind the OpenAI chat protocol; `OPENAI_API_KEY` is sent if it is set.

    Overload and broken connections are tried again up to `retries` times, later each time. `timeout` is in seconds.
    """
    try:
        import openai
    except ImportError as error:
        raise ConfigError("the openai protocol needs a package more: pip install 'kilonova[clients]'") from error
    key = os.environ.get("OPENAI_API_KEY", "none")
    client = openai.OpenAI(base_url=endpoint, api_key=key, max_retries=retries, timeout=timeout)

    def ask(messages: Messages) -> Answer:
        try:
            choice = client.chat.completions.create(
                model=model, messages=cast(Any, messages), max_tokens=max_tokens, temperature=temperature
            ).choices[0]
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise TeacherUnavailable(f"{endpoint}: {error}") from error
        except openai.OpenAIError as error:
            raise PromptRefused(f"{endpoint}: {error}") from error
        return Answer(choice.message.content or "", choice.finish_reason == "stop")

    return ask


def bedrock_teacher(
    endpoint: str | None,
    model: str,
    *,
    max_tokens: int,
    temperature: float,
    concurrency: int,
    retries: int = 5,
    timeout: float = 300.0,
) -> Teacher:
    """A model behind the Bedrock Converse protocol, at AWS unless `endpoint` says otherwise.

    Region and credentials come from where AWS's tools look for them. Otherwise as `openai_teacher`.
    """
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import get_session

    config = Config(
        max_pool_connections=concurrency,
        read_timeout=timeout,
        retries={"mode": "standard", "total_max_attempts": retries + 1},
    )
    try:
        client = get_session().create_client("bedrock-runtime", endpoint_url=endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"bedrock: {error}") from error

    def ask(messages: Messages) -> Answer:
        request: dict[str, Any] = {
            "modelId": model,
            "messages": [_converse_turn(turn) for turn in messages if turn["role"] != "system"],
            "inferenceConfig": {"maxTokens": max_tokens, "temperature": temperature},
        }
        if system := [{"text": turn["content"]} for turn in messages if turn["role"] == "system"]:
            request["system"] = system
        try:
            response = client.converse(**request)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            raise (TeacherUnavailable if status in (401, 403, 404) else PromptRefused)(str(error)) from error
        except BotoCoreError as error:
            raise PromptRefused(str(error)) from error
        text = "".join(block.get("text", "") for block in response["output"]["message"]["content"])
        return Answer(text, response["stopReason"] in ("end_turn", "stop_sequence"))

    return ask


def _converse_turn(turn: dict[str, str]) -> dict[str, Any]:
    return {"role": turn["role"], "content": [{"text": turn["content"]}]}


Asked = tuple[tuple[str, Messages], Future[Answer]]


def _ask(teacher: Teacher, todo: list[tuple[str, Messages]], concurrency: int) -> Iterator[Asked]:
    """Each prompt with its finished future, as answers come, `concurrency` prompts under way at a time."""
    remaining = iter(todo)
    with ThreadPoolExecutor(concurrency, thread_name_prefix="teacher") as pool:
        running: dict[Future[Answer], tuple[str, Messages]] = {}
        try:
            while True:
                while len(running) < concurrency and (item := next(remaining, None)) is not None:
                    running[pool.submit(teacher, item[1])] = item
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _prompt(row: dict[str, Any], path: Path) -> Messages:
    """The turns to be answered: up to the user's last."""
    if row.get("tools"):
        raise DataError(f"{path}: a row has tools; only answers in text can be asked for")
    messages = row.get("messages")
    if messages is None:
        messages = [{"role": "user", "content": row.get("prompt")}]
    if not isinstance(messages, list) or not all(_is_turn(turn) for turn in messages):
        raise DataError(f"{path}: a row needs a prompt, or messages with role (system, user, assistant) and content")
    users = [index for index, turn in enumerate(messages) if turn["role"] == "user"]
    if not users:
        raise DataError(f"{path}: a row's messages have no turn of the user")
    return [{"role": turn["role"], "content": turn["content"]} for turn in messages[: users[-1] + 1]]


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and turn.get("role") in ("system", "user", "assistant")
        and isinstance(turn.get("content"), str)
    )


def _key(messages: Messages) -> str:
    return hashlib.sha256(json.dumps(messages, ensure_ascii=False).encode()).hexdigest()[:16]


def _answered(output: Path) -> set[str]:
    """The prompts that `output` has answers to; a line that was never finished, as after a crash, is taken off."""
    if not output.exists():
        return set()
    with output.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
    return {str(row.get("prompt_id")) for row in read_rows(output)}
