"""Task dialogues with services: tool calls, dialogue summaries, and slots as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from kilonova.data.instruct.conversation import Row, conversation, exchange, shuffled
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.wording import ask

SUMMARY_INSTRUCTIONS = (
    "Summarise the dialogue.",
    "Summarize this conversation.",
    "What is this conversation about?",
    "Give a short summary of the dialogue.",
    "Sum up the conversation in one or two sentences.",
    "Write a brief summary of what they talk about.",
    "Tell me what happens in this dialogue.",
    "TL;DR of the chat below.",
)
SLOT_INSTRUCTIONS = (
    "Extract {names} from the message as JSON.",
    "Return a JSON object with the keys {names}.",
    "Read the message and give {names} in JSON.",
    "Fill in {names}. Answer with JSON only.",
    "Turn the request into JSON with {names}.",
    "Which values does the user give for {names}? Reply as a JSON object.",
)
SPEAKER_STYLES = (
    ("#Person1#", "#Person2#"), ("#Person1#", "#Person2#"), ("Person1", "Person2"), ("A", "B"), ("User", "Assistant"),
    ("Customer", "Agent"), ("Anna", "Ben"), ("Tom", "Maria"), ("Speaker 1", "Speaker 2"),
)  # fmt: skip


class Schemas:
    """What the services of the dialogues can do."""

    def __init__(self, rows: Iterator[dict[str, Any]]) -> None:
        self.intents: dict[tuple[str, str], dict[str, Any]] = {}
        self.slots: dict[tuple[str, str], dict[str, Any]] = {}
        for row in rows:
            service = row["service_name"]
            self.intents.update({(service, intent["name"]): intent for intent in row["intents"]})
            self.slots.update({(service, slot["name"]): slot for slot in row["slots"]})

    def tool(self, service: str, method: str) -> dict[str, Any]:
        """The method as a function schema; only short descriptions and value lists, as the context is small."""
        intent = self.intents[service, method]
        required = list(intent["required_slots"])
        properties = {}
        for name in [*required, *list(intent["optional_slots"])[:2]]:
            slot = self.slots[service, name]
            schema: dict[str, Any] = {"type": "string"}
            if slot["is_categorical"] and 0 < len(slot["possible_values"]) <= 4:
                schema["enum"] = slot["possible_values"]
            properties[name] = schema
        parameters = {"type": "object", "properties": properties, "required": required}
        return {
            "type": "function",
            "function": {"name": method, "description": intent["description"], "parameters": parameters},
        }


def tool_dialogue(dialogue: dict[str, Any], schemas: Schemas, rng: Random) -> Row | None:
    """A window of the dialogue that ends with the answer to a tool call."""
    turns = dialogue["turns"]
    calls = [i for i, turn in enumerate(turns) if turn.get("call")]
    if not calls:
        return None
    end = rng.choice(calls)
    start = max(0, end - rng.choice((1, 3, 5)))
    if turns[start]["speaker"] != "USER":
        start += 1
    messages: list[dict[str, Any]] = []
    used: list[tuple[str, str]] = []
    for turn in turns[start : end + 1]:
        if turn["speaker"] == "USER":
            messages.append({"role": "user", "content": turn["text"].strip()})
            continue
        if call := turn.get("call"):
            service = next((name for name in dialogue["services"] if (name, call["method"]) in schemas.intents), None)
            if service is None:
                return None
            used.append((service, call["method"]))
            function = {"name": call["method"], "arguments": dict(call["parameters"])}
            messages.append(
                {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
            )
            result = dict(list((turn.get("results") or [{}])[0].items())[:8])
            messages.append({"role": "tool", "content": json.dumps(result, ensure_ascii=False)})
        messages.append({"role": "assistant", "content": turn["text"].strip()})
    others = [(service, method) for service, method in schemas.intents if service in dialogue["services"]]
    tools = list(dict.fromkeys(used))
    for extra in rng.sample(others, min(len(others), 1)):
        if all(extra[1] != method for _, method in tools):
            tools.append(extra)
    rng.shuffle(tools)
    return conversation("sgd", "tool_call", messages, [schemas.tool(*tool) for tool in tools])


def spoken(text: str) -> str:
    """A slot name or boolean as words."""
    return {"True": "yes", "False": "no"}.get(text, text.replace("_", " "))


def dialogue_summary(dialogue: dict[str, Any], schemas: Schemas, rng: Random) -> Row | None:
    """A summary by rule: what the user asks for in each intent, with the last values given, and how it ends."""
    turns = dialogue["turns"][: rng.choice((6, 8, 10, 12))]
    if turns[-1]["speaker"] == "USER":
        turns = turns[:-1]
    asker, helper = rng.choice(SPEAKER_STYLES)
    shown = "\n".join(f"{asker if turn['speaker'] == 'USER' else helper}: {turn['text'].strip()}" for turn in turns)
    wanted: dict[tuple[str, str], dict[str, str]] = {}
    for turn in turns:
        for service, frame in turn.get("state", {}).items():
            if (service, frame["intent"]) in schemas.intents:
                wanted[service, frame["intent"]] = frame.get("slots", {})
    parts = []
    for (service, intent), slots in wanted.items():
        entry = schemas.intents[service, intent]
        relevant = {*entry["required_slots"], *entry["optional_slots"]}
        given = [f"{spoken(name)} {spoken(value)}" for name, value in slots.items() if name in relevant][:3]
        goal = entry["description"].rstrip(".")
        goal = goal[0].lower() + goal[1:]
        parts.append(f"{goal}{' (' + ', '.join(given) + ')' if given else ''}")
    if not parts or len(parts) > 3:
        return None
    summary = f"{asker} wants to " + " and then to ".join(parts) + "."
    calls = [turn["call"]["method"] for turn in turns if turn.get("call")]
    done = [key for key in wanted if schemas.intents[key]["is_transactional"] and key[1] in calls]
    if done:
        summary += f" {helper} does it for {asker}."
    elif calls:
        summary += f" {helper} gives {asker} the information."
    return exchange(
        "sgd", "dialogue_summary", ask(rng, SUMMARY_INSTRUCTIONS, shown, ("Dialogue", "Conversation")), summary
    )


def slot_extraction(dialogue: dict[str, Any], rng: Random) -> Row | None:
    """The values that one user turn states word for word, as a JSON object."""
    candidates: list[tuple[str, dict[str, str]]] = []
    for turn in dialogue["turns"]:
        stated = {
            name: value
            for frame in turn.get("state", {}).values()
            for name, value in frame.get("slots", {}).items()
            if len(value) > 1 and value in turn["text"]
        }
        if stated:
            candidates.append((turn["text"], stated))
    if not candidates:
        return None
    text, stated = rng.choice(candidates)
    names: Sequence[str] = rng.sample(sorted(stated), len(stated))
    instructions = [template.format(names=", ".join(names)) for template in SLOT_INSTRUCTIONS]
    answer = json.dumps({name: stated[name] for name in names}, ensure_ascii=False)
    return exchange("sgd", "slots_to_json", ask(rng, instructions, text.strip(), ("Message", "User")), answer)


def sgd(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Tool calls, summaries and slot filling from schema-guided dialogues, twice through."""
    schemas = Schemas(records.rows("sft/sgd_schemas"))
    dialogues = shuffled(records.rows("sft/sgd_dialogues_train"), rng)
    for _ in range(2):
        for dialogue in dialogues:
            for row in (
                tool_dialogue(dialogue, schemas, rng),
                dialogue_summary(dialogue, schemas, rng),
                slot_extraction(dialogue, rng) if rng.random() < 0.6 else None,
            ):
                if row:
                    yield row


def glaive(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """The conversations with tool calls of the Glaive demonstration subset."""
    roles = {"human": "user", "gpt": "assistant"}
    for row in shuffled(records.rows("sft/lf_glaive_toolcall_en_demo"), rng):
        parts = row["conversations"]
        if not any(part["from"] == "function_call" for part in parts):
            continue
        messages: list[dict[str, Any]] = []
        for part in parts:
            if part["from"] == "function_call":
                call = json.loads(part["value"])
                function = {"name": call["name"], "arguments": call["arguments"]}
                messages.append(
                    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
                )
            else:
                messages.append({"role": roles.get(part["from"], "tool"), "content": part["value"].strip()})
        tools = json.loads(row["tools"]) if isinstance(row.get("tools"), str) else row.get("tools", [])
        schemas = [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
        yield conversation("glaive", "tool_call", messages, schemas)
