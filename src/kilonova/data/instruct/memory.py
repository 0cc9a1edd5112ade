"""Conversations in which a later question asks for what the user said earlier."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from kilonova.data.instruct.conversation import Row, turns
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.system_prompts import some_facts
from kilonova.data.instruct.words import ANIMALS, CITIES, COLOURS, FIRST_NAMES, FOODS, HOBBIES, JOBS, MONTHS, OBJECTS

SOURCE = "memory"

STATEMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "name": (
        ("My name is {0}.", "I am {0}.", "I'm {0}.", "Call me {0}.", "Hi, I'm {0}.", "Hello, my name is {0}.",
        "You can call me {0}.", "{0} is my name."),
        ("What is my name?", "What's my name?", "Do you remember my name?", "Who am I?", "Say my name.",
        "What am I called?", "Tell me my name.", "Can you recall my name?"),
        ("Your name is {0}.", "You are {0}.", "Your name is {0}."),
    ),
    "colour": (
        ("My favourite colour is {0}.", "I love the colour {0}.", "The colour I like best is {0}.",
        "I like {0} more than any other colour.", "{0} is my favourite colour.", "My favorite color is {0}."),
        ("What is my favourite colour?", "Which colour do I like best?", "What colour do I like?",
        "Do you remember my favourite colour?", "Name my favourite colour.", "What's my favorite color?"),
        ("Your favourite colour is {0}.", "You like {0}.", "Your favourite colour is {0}."),
    ),
    "city": (
        ("I live in {0}.", "My home is in {0}.", "I am from {0}.", "I come from {0}.", "My city is {0}.",
        "I moved to {0} last year."),
        ("Where do I live?", "Which city do I live in?", "Where am I from?", "Do you remember my city?",
        "What is my city?", "Name the city I live in."),
        ("You live in {0}.", "You are from {0}.", "Your city is {0}."),
    ),
    "job": (
        ("I work as a {0}.", "My job is {0}.", "I am a {0} by trade.", "I earn my money as a {0}.",
        "By profession I am a {0}.", "I have been a {0} for years."),
        ("What is my job?", "What do I do for a living?", "What do I work as?", "Do you remember my job?",
        "Name my profession.", "What's my profession?"),
        ("You work as a {0}.", "Your job is {0}.", "You are a {0}."),
    ),
    "pet": (
        ("I have a {0}.", "My pet is a {0}.", "At home I keep a {0}.", "I got a {0} for my birthday.",
        "There is a {0} in my house.", "My family owns a {0}."),
        ("What pet do I have?", "Which animal do I have?", "What is my pet?", "Do you remember my pet?",
        "What animal lives with me?", "Name my pet's kind."),
        ("You have a {0}.", "Your pet is a {0}.", "You have a {0}."),
    ),
    "food": (
        ("My favourite food is {0}.", "I love {0}.", "I like to eat {0}.", "The food I like most is {0}.",
        "I could eat {0} every day.", "For dinner I want {0}."),
        ("What is my favourite food?", "What do I like to eat?", "Which food do I like?",
        "Do you remember what I like to eat?", "What's my favorite food?", "Name the food I like."),
        ("You like {0}.", "Your favourite food is {0}.", "You like to eat {0}."),
    ),
    "hobby": (
        ("My hobby is {0}.", "I enjoy {0}.", "In my free time I do {0}.", "I spend my weekends on {0}.",
        "What I like most is {0}.", "My favourite hobby is {0}."),
        ("What is my hobby?", "What do I enjoy?", "What do I do in my free time?", "Do you remember my hobby?",
        "Name my hobby.", "How do I spend my free time?"),
        ("Your hobby is {0}.", "You enjoy {0}.", "Your hobby is {0}."),
    ),
    "birthday": (
        ("My birthday is in {0}.", "I was born in {0}.", "I have my birthday in {0}.", "I turn a year older in {0}.",
        "We celebrate my birthday in {0}.", "My birthday month is {0}."),
        ("When is my birthday?", "In which month was I born?", "Which month is my birthday in?",
        "Do you remember my birthday?", "What is my birthday month?", "Name the month of my birthday."),
        ("Your birthday is in {0}.", "You were born in {0}.", "It is in {0}."),
    ),
    "age": (
        ("I am {0} years old.", "I'm {0}.", "My age is {0}.", "I turned {0} this year.", "I am {0}.", "{0} is my age."),
        ("How old am I?", "What is my age?", "Do you remember my age?", "Tell me my age.", "Say how old I am.",
        "What's my age?"),
        ("You are {0} years old.", "You are {0}.", "Your age is {0}."),
    ),
    "number": (
        ("Remember the number {0}.", "Keep the number {0} in mind.", "The number is {0}.",
        "Please remember this number: {0}.", "My lucky number is {0}.", "I am thinking of {0}."),
        ("Which number was it?", "What was the number?", "Which number did I tell you?", "Do you remember the number?",
        "Say the number.", "Repeat the number I gave you."),
        ("The number is {0}.", "{0}", "It was {0}."),
    ),
    "word": (
        ("Remember the word {0}.", "The secret word is {0}.", "Keep this word in mind: {0}.", "My word is {0}.",
        "Please remember this: {0}.", "The password is {0}."),
        ("Which word was it?", "What was the word?", "Which word did I tell you?", "Do you remember the word?",
        "Say the word.", "Repeat the word I gave you."),
        ("The word is {0}.", "{0}", "It was {0}."),
    ),
}  # fmt: skip
ACKNOWLEDGEMENTS = {
    "name": ("Nice to meet you, {0}!", "Hello {0}! How can I help you?", "Hi {0}!", "Welcome, {0}."),
    "number": ("Okay, I will remember {0}.", "Noted: {0}.", "Got it, {0}."),
    "word": ("Okay, I will remember {0}.", "Noted: {0}.", "Got it, {0}."),
}
PLAIN_ACKNOWLEDGEMENTS = (
    "Okay, I will remember that.",
    "Noted.",
    "Thank you for telling me.",
    "Good to know.",
    "Got it.",
    "I see.",
)
NOT_TOLD = ("You have not told me that.", "I don't know, you have not told me.", "You did not say.")
CHANGES = ("Actually, ", "Sorry, I was wrong. ", "Correction: ", "No wait, ")


def value_of(kind: str, rng: Random) -> str:
    """A value of this kind."""
    if kind in ("age", "number"):
        return str(rng.randint(5, 95) if kind == "age" else rng.randint(1, 9999))
    pools = {"name": FIRST_NAMES, "colour": COLOURS, "city": CITIES, "job": JOBS, "pet": ANIMALS, "food": FOODS,
        "hobby": HOBBIES,
             "birthday": MONTHS, "word": OBJECTS}  # fmt: skip
    return rng.choice(pools[kind])


def articled(template: str, value: str) -> str:
    """The template with the value in place, "a" turned into "an" before a vowel and the first letter a capital."""
    text = template.format(value)
    if value[0].lower() in "aeiou":
        text = text.replace(f" a {value}", f" an {value}")
    return text[0].upper() + text[1:]


def acknowledgement(kind: str, value: str, rng: Random) -> str:
    """The answer to a statement."""
    return rng.choice(ACKNOWLEDGEMENTS.get(kind, PLAIN_ACKNOWLEDGEMENTS)).format(value)


def recall(rng: Random) -> tuple[str, list[str]]:
    """One to three statements, perhaps other talk or a correction, then a question about one of them."""
    kinds = rng.sample(sorted(STATEMENTS), rng.choice((1, 1, 2, 2, 3)))
    if "age" in kinds and "number" in kinds:
        kinds.remove("number")
    values = {kind: value_of(kind, rng) for kind in kinds}
    texts: list[str] = []
    if len(kinds) > 1 and rng.random() < 0.5:
        texts.append(" ".join(articled(rng.choice(STATEMENTS[kind][0]), values[kind]) for kind in kinds))
        texts.append(
            acknowledgement(kinds[0], values[kinds[0]], rng)
            if kinds[0] == "name"
            else rng.choice(PLAIN_ACKNOWLEDGEMENTS)
        )
    else:
        for kind in kinds:
            texts.append(articled(rng.choice(STATEMENTS[kind][0]), values[kind]))
            texts.append(acknowledgement(kind, values[kind], rng))
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        texts.extend(some_facts(rng, 1, 1)[0])
    task = "recall"
    if rng.random() < 0.12:
        kind = rng.choice(kinds)
        values[kind] = value_of(kind, rng)
        statement = articled(rng.choice(STATEMENTS[kind][0]), values[kind])
        texts.append(
            rng.choice(CHANGES)
            + (
                statement
                if statement.startswith(("I ", "I'", "Hi", "Hello")) or statement.startswith(values[kind])
                else statement[0].lower() + statement[1:]
            )
        )
        texts.append(acknowledgement(kind, values[kind], rng))
        task = "recall_correction"
    if rng.random() < 0.1:
        absent = rng.choice([kind for kind in STATEMENTS if kind not in kinds])
        return "recall_absent", [*texts, rng.choice(STATEMENTS[absent][1]), rng.choice(NOT_TOLD)]
    asked = rng.sample(kinds, min(len(kinds), rng.choice((1, 1, 1, 2))))
    for kind in asked:
        texts += [rng.choice(STATEMENTS[kind][1]), articled(rng.choice(STATEMENTS[kind][2]), values[kind])]
    return task, texts


def about_others(rng: Random) -> tuple[str, list[str]]:
    """Facts about two or three people in one turn, then questions about one of them."""
    names = rng.sample(FIRST_NAMES, rng.randint(2, 3))
    things, verb, question = rng.choice((
        (rng.sample(OBJECTS, 3), "has a {0}", "What does {name} have?"), (rng.sample(FOODS, 3), "likes {0}",
        "What does {name} like?"),
        (rng.sample(CITIES, 3), "lives in {0}", "Where does {name} live?"), (rng.sample(JOBS, 3), "works as a {0}",
        "What is {name}'s job?"),
        (rng.sample(COLOURS, 3), "wears a {0} shirt", "Which colour does {name} wear?"),
    ))  # fmt: skip
    pairs = list(zip(names, things, strict=False))
    statement = " ".join(articled(f"{name} {verb}.", thing) for name, thing in pairs)
    name, thing = rng.choice(pairs)
    follow_up = question.format(name=name)
    answer = articled(f"{name} {verb}.", thing)
    if rng.random() < 0.5:
        return "recall_people", [f"{statement} {follow_up}", answer]
    return "recall_people", [statement, rng.choice(PLAIN_ACKNOWLEDGEMENTS), follow_up, answer]


def last_message(rng: Random) -> tuple[str, list[str]]:
    """Asks what was said before."""
    (question, answer), (other, reply) = some_facts(rng, 2, 2)
    request, expected = rng.choice((
        ("What did I ask you first?", question), ("Repeat my first question.", question), ("What was my last question?",
        other),
        ("What did you just say?", reply), ("Repeat your last answer.", reply), ("Say that again.", reply),
    ))  # fmt: skip
    return "recall_chat", [question, answer, other, reply, request, expected]


def memory(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Recall over several turns; without end."""
    while True:
        roll = rng.random()
        task, texts = recall(rng) if roll < 0.75 else about_others(rng) if roll < 0.9 else last_message(rng)
        system = "You are a helpful assistant." if rng.random() < 0.08 else None
        yield turns(SOURCE, task, texts, system=system)
