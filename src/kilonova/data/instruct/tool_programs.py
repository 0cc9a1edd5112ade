"""Tool calls made by program: weather, sums, reminders, messages, search, timers, music, currency."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from kilonova.data.instruct.conversation import Row, conversation
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.system_prompts import some_facts
from kilonova.data.instruct.words import CITIES, FIRST_NAMES, FOODS, NOUNS, OBJECTS, WEEKDAYS

SOURCE = "tool_programs"
Arguments = dict[str, Any]
Call = tuple[str, Arguments, Arguments, str]


def schema(name: str, description: str, properties: dict[str, dict[str, Any]], required: list[str]) -> dict[str, Any]:
    """A function in the form that chat templates take."""
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


STRING, NUMBER, INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
TOOLS: dict[str, tuple[dict[str, Any], ...]] = {
    "weather": (
        schema("get_weather", "Get the weather of a city", {"city": STRING}, ["city"]),
        schema("weather", "Current weather", {"location": STRING, "unit": {"type": "string", "enum": ["celsius",
        "fahrenheit"]}}, ["location"]),
    ),
    "sum": (
        schema("calculate", "Evaluate an arithmetic expression", {"expression": STRING}, ["expression"]),
        schema("calculator", "Do a calculation with two numbers", {"a": NUMBER, "b": NUMBER,
        "operation": {"type": "string", "enum": ["add", "subtract", "multiply"]}}, ["a", "b", "operation"]),
    ),
    "reminder": (
        schema("set_reminder", "Set a reminder", {"text": STRING, "day": STRING}, ["text", "day"]),
        schema("add_event", "Add an event to the calendar", {"title": STRING, "day": STRING}, ["title", "day"]),
    ),
    "message": (
        schema("send_message", "Send a message to a person", {"to": STRING, "text": STRING}, ["to", "text"]),
        schema("send_email", "Send an e-mail", {"recipient": STRING, "body": STRING}, ["recipient", "body"]),
    ),
    "search": (
        schema("search", "Search the web", {"query": STRING}, ["query"]),
        schema("find_places", "Find places of a kind in a city", {"kind": STRING, "city": STRING}, ["kind", "city"]),
    ),
    "timer": (schema("set_timer", "Start a timer", {"minutes": INTEGER}, ["minutes"]),),
    "music": (schema("play_music", "Play music by an artist", {"artist": STRING}, ["artist"]),),
    "order": (schema("order_food", "Order food", {"dish": STRING, "quantity": INTEGER}, ["dish", "quantity"]),),
    "light": (schema("switch_light", "Turn the light of a room on or off", {"room": STRING, "on": {"type": "boolean"}},
    ["room", "on"]),),
}  # fmt: skip
ROOMS = ("kitchen", "bedroom", "bathroom", "living room", "hall", "office", "garage")


def weather(name: str, rng: Random) -> Call:
    """A question about the weather."""
    city, degrees, sky = (
        rng.choice(CITIES),
        rng.randint(-5, 35),
        rng.choice(("sunny", "cloudy", "rainy", "windy", "snowy")),
    )
    user = rng.choice(("What is the weather in {0}?", "How is the weather in {0} today?", "Is it cold in {0}?",
        "Weather in {0}?", "Tell me the weather for {0}.",
                       "Do I need a coat in {0}?",
                       "I'm going to {0}. What's the weather like?")).format(city)  # fmt: skip
    arguments: Arguments = {"city": city} if name == "get_weather" else {"location": city}
    if name == "weather" and rng.random() < 0.4:
        unit = rng.choice(("celsius", "fahrenheit"))
        user = f"{user} In {unit}, please."
        arguments["unit"] = unit
    return user, arguments, {"temperature": degrees, "sky": sky}, f"It is {sky} in {city}, with {degrees} degrees."


def sums(name: str, rng: Random) -> Call:
    """A sum too large to do in the head."""
    x, y = rng.randint(10, 999), rng.randint(10, 999)
    sign, word, operation = rng.choice((("+", "plus", "add"), ("-", "minus", "subtract"), ("*", "times", "multiply")))
    result = {"+": x + y, "-": x - y, "*": x * y}[sign]
    user = rng.choice(("What is {0} {1} {2}?", "Calculate {0} {1} {2}.", "How much is {0} {1} {2}?", "{0} {1} {2}?",
        "Please work out {0} {1} {2}.",
                       "Compute {0} {1} {2} for me.")).format(x, rng.choice((sign, word)), y)  # fmt: skip
    arguments: Arguments = (
        {"expression": f"{x} {sign} {y}"} if name == "calculate" else {"a": x, "b": y, "operation": operation}
    )
    return user, arguments, {"result": result}, rng.choice((f"The result is {result}.", f"{x} {sign} {y} = {result}"))


def reminder(name: str, rng: Random) -> Call:
    """Something to remember on a day."""
    day = rng.choice(WEEKDAYS)
    deed = rng.choice(
        (
            f"call {rng.choice(FIRST_NAMES)}",
            f"buy {rng.choice(FOODS)}",
            f"clean the {rng.choice(OBJECTS)}",
            f"visit the {rng.choice(NOUNS)}",
            "pay the rent",
            "water the plants",
        )
    )
    if name == "set_reminder":
        user = rng.choice(("Remind me to {0} on {1}.", "On {1} I must {0}. Remind me.", "Set a reminder for {1}: {0}.",
            "Please remind me on {1} to {0}.",
                           "Don't let me forget to {0} on {1}.", "I need a reminder to {0} on {1}.")).format(deed,
                           day)  # fmt: skip
        return user, {"text": deed, "day": day}, {"status": "ok"}, f"I will remind you to {deed} on {day}."
    user = rng.choice(("Put {0} into my calendar for {1}.", "Add {0} to my calendar on {1}.", "New event on {1}: {0}.",
        "Plan {0} for {1}.",
                       "Calendar: {0} on {1}.", "Schedule {0} on {1}.")).format(f'"{deed}"', day)  # fmt: skip
    return user, {"title": deed, "day": day}, {"status": "ok"}, f'I added "{deed}" to your calendar for {day}.'


def message(name: str, rng: Random) -> Call:
    """A message to a person."""
    person = rng.choice(FIRST_NAMES)
    text = rng.choice(
        (
            "I am late",
            "see you tomorrow",
            "happy birthday",
            "the train is delayed",
            "dinner is ready",
            "call me back",
            "I am at home",
            "thank you for the gift",
        )
    )
    user = rng.choice(
        (
            'Tell {0} "{1}".',
            'Write to {0}: "{1}"',
            'Send {0} the message "{1}".',
            'Let {0} know: "{1}".',
            'Please send "{1}" to {0}.',
            'Message {0}: "{1}"',
        )
    ).format(person, text)
    arguments = {"to": person, "text": text} if name == "send_message" else {"recipient": person, "body": text}
    return user, arguments, {"status": "sent"}, f"I sent your message to {person}."


def search(name: str, rng: Random) -> Call:
    """A search for places or words."""
    if name == "find_places":
        kind, city = rng.choice(("restaurants", "hotels", "museums", "parks", "cafes", "bookshops")), rng.choice(CITIES)
        place = f"{rng.choice(FIRST_NAMES)}'s {kind[:-1]}"
        user = rng.choice(
            (
                "Find {0} in {1}.",
                "Which {0} are there in {1}?",
                "I am looking for {0} in {1}.",
                "Show me {0} in {1}.",
                "Are there any {0} in {1}?",
                "{0} in {1}, please.",
            )
        ).format(kind, city)
        return (
            user[0].upper() + user[1:],
            {"kind": kind, "city": city},
            {"places": [place]},
            f"I found this in {city}: {place}.",
        )
    query = rng.choice(
        (
            f"history of {rng.choice(CITIES)}",
            f"how to cook {rng.choice(FOODS)}",
            f"how to repair a {rng.choice(OBJECTS)}",
            f"cheap flights to {rng.choice(CITIES)}",
        )
    )
    user = rng.choice(
        (
            "Search for {0}.",
            "Look up {0}.",
            "Find something about {0}.",
            "Search the web for {0}.",
            "Google {0}.",
            "I want to read about {0}. Search it.",
        )
    ).format(query)
    title = query.capitalize()
    return (
        user,
        {"query": query},
        {"title": title, "url": f"https://example.com/{query.replace(' ', '-').lower()}"},
        f"I found a page: {title}.",
    )


def timer(name: str, rng: Random) -> Call:
    """A timer in minutes."""
    minutes = rng.randint(1, 90)
    user = rng.choice(
        (
            "Set a timer for {0} minutes.",
            "Timer: {0} minutes.",
            "Start a {0} minute timer.",
            "Wake me in {0} minutes.",
            "Count down {0} minutes.",
            "I need a timer of {0} minutes.",
        )
    ).format(minutes)
    return user, {"minutes": minutes}, {"status": "started"}, f"The timer is set for {minutes} minutes."


def music(name: str, rng: Random) -> Call:
    """Music by an artist."""
    artist = rng.choice(
        (
            "Mozart",
            "Bach",
            "Chopin",
            "Queen",
            "ABBA",
            "Madonna",
            "Beethoven",
            "Adele",
            "Verdi",
            "The Beatles",
            "Bob Marley",
            "Miles Davis",
        )
    )
    user = rng.choice(
        (
            "Play {0}.",
            "Play something by {0}.",
            "I want to hear {0}.",
            "Put on {0}, please.",
            "Music by {0}!",
            "Let's listen to {0}.",
        )
    ).format(artist)
    return user, {"artist": artist}, {"status": "playing"}, f"Playing {artist}."


def order(name: str, rng: Random) -> Call:
    """An order of food."""
    dish, quantity = rng.choice(FOODS), rng.randint(1, 6)
    user = rng.choice(
        (
            "Order {1} portions of {0}.",
            "I'd like {1} times {0}.",
            "Get me {1} of {0}.",
            "Please order {0}, {1} portions.",
            "{1} x {0}, please.",
            "We want {1} servings of {0}.",
        )
    ).format(dish, quantity)
    return (
        user,
        {"dish": dish, "quantity": quantity},
        {"status": "ordered", "minutes": (wait := rng.randint(10, 60))},
        f"Your {dish} will arrive in {wait} minutes.",
    )


def light(name: str, rng: Random) -> Call:
    """A lamp on or off."""
    room, on = rng.choice(ROOMS), rng.random() < 0.5
    word = "on" if on else "off"
    user = rng.choice(
        (
            "Turn {1} the light in the {0}.",
            "Switch the {0} light {1}.",
            "{0} light {1}.",
            "Light {1} in the {0}, please.",
            "Please turn the {0} lights {1}.",
            "I want the light in the {0} {1}.",
        )
    ).format(room, word)
    return user[0].upper() + user[1:], {"room": room, "on": on}, {"status": "ok"}, f"The light in the {room} is {word}."


CALLS: dict[str, Callable[[str, Random], Call]] = {
    "weather": weather, "sum": sums, "reminder": reminder, "message": message, "search": search, "timer": timer,
    "music": music, "order": order, "light": light,
}  # fmt: skip


def tool_programs(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """One tool call among one to three tools, its result and the answer; sometimes a question that needs none."""
    while True:
        kinds = rng.sample(sorted(TOOLS), rng.randint(1, 3))
        chosen = [rng.choice(TOOLS[kind]) for kind in kinds]
        kind, tool = kinds[0], chosen[0]
        rng.shuffle(chosen)
        messages: list[dict[str, Any]] = []
        if rng.random() < 0.15:
            messages.append(
                {
                    "role": "system",
                    "content": rng.choice(
                        ("You are a helpful assistant.", "Use the tools when they help.", "You are Micro.")
                    ),
                }
            )
        if rng.random() < 0.2:
            question, answer = some_facts(rng, 1, 1)[0]
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            if rng.random() < 0.4:
                yield conversation(SOURCE, "no_tool_needed", messages, chosen)
                continue
        name = tool["function"]["name"]
        user, arguments, result, answer = CALLS[kind](name, rng)
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        messages.append({"role": "user", "content": user})
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "content": json.dumps(result, ensure_ascii=False)})
        messages.append({"role": "assistant", "content": answer})
        yield conversation(SOURCE, "tool_call", messages, chosen)
