"""Conversations under a system prompt: names, styles, languages, endings and formats that the answers keep to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random

from kilonova.data.instruct.conversation import Row, turns
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.smalltalk import NAME_QUESTIONS
from kilonova.data.instruct.words import ANTONYMS, COLOURS, FIRST_NAMES, JOBS, NUMBER_WORDS, WEEKDAYS

SOURCE = "system_prompts"
Exchange = tuple[str, str]
Case = tuple[str, str, list[Exchange]]

PERSONA_NAMES = ("Nova", "Echo", "Pixel", "Luna", "Max", "Ada", "Robo", "Iris", "Atlas", "Sage", "Aria", "Otto", "Mira",
    "Hal",
                 "Ruby", "Finn", "Cleo", "Nemo", "Juno", "Orion")  # fmt: skip
PERSONA_ROLES = (
    "a helpful assistant", "a friendly shop assistant", "a hotel receptionist", "a pirate", "a librarian",
    "a museum guide",
    "a cooking assistant", "a travel agent", "a maths tutor", "a language teacher", "a bank assistant",
    "a robot on a spaceship",
    "a doctor's receptionist", "a garden expert", "a football coach",
)  # fmt: skip
FACTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("What is the capital of France?", "Name the capital of France."), "Paris is the capital of France."),
    (("What is the capital of Italy?", "Which city is the capital of Italy?"), "Rome is the capital of Italy."),
    (("What is the capital of Japan?", "Name Japan's capital."), "Tokyo is the capital of Japan."),
    (("What colour is the sky?", "Which colour does the sky have?"), "The sky is blue."),
    (("What colour is grass?", "Which colour is grass?"), "Grass is green."),
    (("How many days are in a week?", "How many days does a week have?"), "A week has seven days."),
    (("How many months are in a year?", "How many months does a year have?"), "A year has twelve months."),
    (("How many legs does a spider have?", "Count the legs of a spider."), "A spider has eight legs."),
    (("What do bees make?", "What do we get from bees?"), "Bees make honey."),
    (("What do cows eat?", "What is the food of cows?"), "Cows eat grass."),
    (("Where do fish live?", "Where can you find fish?"), "Fish live in water."),
    (("What is ice made of?", "What is ice?"), "Ice is frozen water."),
    (("Is fire hot or cold?", "Is a fire cold?"), "Fire is hot."),
    (("What is the largest ocean?", "Which ocean is the biggest?"), "The Pacific is the largest ocean."),
    (("When does the sun rise?", "At what time of day does the sun come up?"), "The sun rises in the morning."),
    (("Which season is the coldest?", "What is the coldest season?"), "Winter is the coldest season."),
    (("What is the opposite of big?", "Give the opposite of big."), "The opposite of big is small."),
    (("What is two plus two?", "What is 2 + 2?"), "Two plus two is four."),
    (("What do you wear on your feet?", "What goes on your feet?"), "You wear shoes on your feet."),
    (("What do we use an umbrella for?", "Why do people carry umbrellas?"), "An umbrella keeps off the rain."),
    (("Who writes books?", "What is a person who writes books called?"), "An author writes books."),
    (("Hello", "Hi there", "Good morning"), "Hello! How can I help you?"),
    (("Thank you", "Thanks a lot"), "You are welcome!"),
    (("How are you?", "How are you doing?"), "I am fine, thank you."),
)
FOREIGN_ANSWERS: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "German": (
        (("Hello", "Hi", "Good morning"), "Hallo! Wie kann ich helfen?"), (("Thank you", "Thanks"), "Gern geschehen!"),
        (("How are you?", "How are you doing?"), "Mir geht es gut, danke."), (("Goodbye", "Bye"), "Auf Wiedersehen!"),
        (("What colour is the sky?",), "Der Himmel ist blau."), (("What is the capital of France?",),
        "Paris ist die Hauptstadt von Frankreich."),
        (("How many days are in a week?",), "Eine Woche hat sieben Tage."), (("Who are you?",),
        "Ich bin Micro, ein kleines Sprachmodell der Kilonova-Familie."),
    ),
    "French": (
        (("Hello", "Hi", "Good morning"), "Bonjour ! Comment puis-je vous aider ?"), (("Thank you", "Thanks"),
        "De rien !"),
        (("How are you?", "How are you doing?"), "Je vais bien, merci."), (("Goodbye", "Bye"), "Au revoir !"),
        (("What colour is the sky?",), "Le ciel est bleu."), (("What is the capital of France?",),
        "Paris est la capitale de la France."),
        (("How many days are in a week?",), "Une semaine a sept jours."), (("Who are you?",),
        "Je suis Micro, un petit modèle de langue de la famille Kilonova."),
    ),
    "Spanish": (
        (("Hello", "Hi", "Good morning"), "¡Hola! ¿En qué puedo ayudar?"), (("Thank you", "Thanks"), "¡De nada!"),
        (("How are you?", "How are you doing?"), "Estoy bien, gracias."), (("Goodbye", "Bye"), "¡Adiós!"),
        (("What colour is the sky?",), "El cielo es azul."), (("What is the capital of France?",),
        "París es la capital de Francia."),
        (("How many days are in a week?",), "Una semana tiene siete días."), (("Who are you?",),
        "Soy Micro, un pequeño modelo de lenguaje de la familia Kilonova."),
    ),
    "Italian": (
        (("Hello", "Hi", "Good morning"), "Ciao! Come posso aiutare?"), (("Thank you", "Thanks"), "Prego!"),
        (("How are you?", "How are you doing?"), "Sto bene, grazie."), (("Goodbye", "Bye"), "Arrivederci!"),
        (("What colour is the sky?",), "Il cielo è blu."), (("What is the capital of France?",),
        "Parigi è la capitale della Francia."),
        (("How many days are in a week?",), "Una settimana ha sette giorni."), (("Who are you?",),
        "Sono Micro, un piccolo modello linguistico della famiglia Kilonova."),
    ),
}  # fmt: skip
ENDINGS = ("Have a nice day!", "Over and out.", "Thank you.", "Amen.", "The end.", "Ho ho ho!", "Meow.", "Beep.",
    "Arr!", "Stay safe.",
           "Yours, Micro.", "Cheers!", "Good luck!", "Peace.", "That is all.")  # fmt: skip
OPENINGS = ("Well,", "Dear user,", "Listen:", "Hello friend,", "Answer:", "Ahoy!", "Yes, captain:", "My lord,", "Sure!",
    "Beep boop.",
            "Certainly:", "Good question.")  # fmt: skip


def some_facts(rng: Random, low: int = 1, high: int = 3) -> list[Exchange]:
    """A few plain questions and full-sentence answers."""
    return [(rng.choice(questions), answer) for questions, answer in rng.sample(FACTS, rng.randint(low, high))]


def every_answer(rng: Random, change: Callable[[str], str]) -> list[Exchange]:
    """Plain questions with every answer changed the same way."""
    return [(question, change(answer)) for question, answer in some_facts(rng)]


def lowered(answer: str) -> str:
    """The answer with a small first letter, unless it starts with a name or "I"."""
    return answer if answer.split()[0] in {"Paris", "Rome", "Tokyo", "I"} else answer[0].lower() + answer[1:]


def persona(rng: Random) -> Case:
    """The assistant has another name and role."""
    name, role = rng.choice(PERSONA_NAMES), rng.choice(PERSONA_ROLES)
    system = rng.choice((
        f"You are {name}, {role}.", f"Your name is {name}. You are {role}.", f"You are {role} called {name}.",
        f"Act as {name}, {role}.",
        f"You play {name}, {role}.", f"From now on you are {name}. Your role: {role}.",
    ))  # fmt: skip
    questions = [question for question in NAME_QUESTIONS if "human" not in question and "person" not in question]
    name_only = ("What is your name?", "What's your name?", "Do you have a name?", "What should I call you?")
    question = rng.choice(questions)
    if question in name_only:
        answer = rng.choice((f"My name is {name}.", f"I am {name}."))
    elif question.startswith("Are you"):
        answer = f"I am {name}, {role}."
    else:
        answer = rng.choice((f"I am {name}, {role}.", f"I'm {name}, {role}."))
    exchanges = [(question, answer)]
    if rng.random() < 0.4:
        exchanges = [*some_facts(rng, 1, 1), *exchanges]
    if rng.random() < 0.3:
        exchanges.append((rng.choice(("What is your job?", "What do you do?", "What is your role?")), f"I am {role}."))
    return "persona", system, exchanges


def upper(rng: Random) -> Case:
    """All answers in capitals."""
    system = rng.choice(("Answer in upper case.", "Always write in CAPITAL LETTERS.", "Use only capital letters.",
        "Reply in all caps.",
                         "Write every answer in uppercase.",
                         "You shout: all your answers are in capitals."))  # fmt: skip
    return "upper_case", system, every_answer(rng, str.upper)


def lower(rng: Random) -> Case:
    """All answers in small letters."""
    system = rng.choice(("Answer in lower case.", "Always write in small letters.", "Never use capital letters.",
        "Reply in lowercase only.",
                         "Write every answer in lowercase.", "Use no capitals at all."))  # fmt: skip
    return "lower_case", system, every_answer(rng, str.lower)


def ending(rng: Random) -> Case:
    """All answers end with a phrase."""
    phrase = rng.choice(ENDINGS)
    system = rng.choice((
        'Always end with "{0}"', 'End every answer with "{0}"', 'Finish each reply with the words "{0}"',
        "The last words of every answer are: {0}",
        'After each answer say "{0}"', 'Close all your messages with "{0}"',
    )).format(phrase)  # fmt: skip
    return "ending", system, every_answer(rng, lambda answer: f"{answer} {phrase}")


def opening(rng: Random) -> Case:
    """All answers start with a phrase."""
    phrase = rng.choice(OPENINGS)
    system = rng.choice((
        'Always begin with "{0}"', 'Start every answer with "{0}"', 'Open each reply with the words "{0}"',
        "The first words of every answer are: {0}",
        'Before each answer say "{0}"', 'Begin all your messages with "{0}"',
    )).format(phrase)  # fmt: skip
    return (
        "opening",
        system,
        every_answer(rng, lambda answer: f"{phrase} {lowered(answer) if phrase.endswith(',') else answer}"),
    )


def foreign(rng: Random) -> Case:
    """Answers in another language whatever the question's."""
    language = rng.choice(sorted(FOREIGN_ANSWERS))
    system = rng.choice(("Reply in {0}.", "Always answer in {0}.", "You speak only {0}.", "Write all answers in {0}.",
        "The user wants {0} answers.",
                         "Respond in {0}, whatever the question's language.")).format(language)  # fmt: skip
    chosen = rng.sample(FOREIGN_ANSWERS[language], rng.randint(1, 3))
    return "reply_language", system, [(rng.choice(questions), answer) for questions, answer in chosen]


def json_only(rng: Random) -> Case:
    """Answers as a JSON object with one key."""
    key = rng.choice(("answer", "reply", "text", "response", "output", "message"))
    system = rng.choice(('Answer with JSON: {{"{0}": "..."}}.', 'Reply only with a JSON object that has the key "{0}".',
        "Output JSON with one key, {0}.",
                         "Every answer is a JSON object with the key {0}.", "Use JSON for all answers; the key is {0}.",
                         "Respond in JSON. Put your reply under {0}.")).format(key)  # fmt: skip
    return "json_reply", system, every_answer(rng, lambda answer: json.dumps({key: answer}, ensure_ascii=False))


def one_word(rng: Random) -> Case:
    """One-word answers."""
    system = rng.choice(("Answer with one word.", "Use a single word.", "One-word answers only.",
        "Reply with exactly one word.", "Be as short as possible: one word.",
                         "Your answers have only one word."))  # fmt: skip
    cases = [
        ("What is the capital of France?", "Paris"), ("What colour is the sky?", "Blue"), ("What colour is grass?",
        "Green"), ("What do bees make?", "Honey"),
        ("Where do fish live?", "Water"), ("Which season is the coldest?", "Winter"), ("How many days are in a week?",
        "Seven"), ("Is fire hot or cold?", "Hot"),
        ("What do cows eat?", "Grass"), ("Which is bigger, a mouse or an elephant?", "Elephant"),
        ("Do birds have wings?", "Yes"), ("Do fish have legs?", "No"),
        ("What is the capital of Italy?", "Rome"), ("How many legs does a spider have?", "Eight"),
        ("What do you wear on your feet?", "Shoes"),
    ]  # fmt: skip
    first, second = rng.choice(ANTONYMS)
    cases.append((f"What is the opposite of {first}?", second.capitalize()))
    at = rng.randrange(7)
    cases.append((f"Which day comes after {WEEKDAYS[at]}?", WEEKDAYS[(at + 1) % 7]))
    return "one_word", system, rng.sample(cases, rng.randint(1, 3))


def yes_no(rng: Random) -> Case:
    """Only yes or no."""
    system = rng.choice(("Answer only yes or no.", "You may only say yes or no.", "Reply with yes or no, nothing else.",
        "Yes or no answers only.",
                         "Use just the words yes and no.", "Every answer is either yes or no."))  # fmt: skip
    cases = [
        ("Is the sky blue?", "yes"), ("Is grass red?", "no"), ("Do cats bark?", "no"), ("Do dogs bark?", "yes"),
        ("Is ice cold?", "yes"), ("Can fish fly a plane?", "no"),
        ("Is Paris in France?", "yes"), ("Is London in Spain?", "no"), ("Is fire cold?", "no"),
        ("Does a week have seven days?", "yes"), ("Is a mouse bigger than a horse?", "no"),
        ("Are bananas yellow?", "yes"), ("Is water wet?", "yes"), ("Do cows lay eggs?", "no"), ("Do hens lay eggs?",
        "yes"), ("Is snow black?", "no"),
        ("Does a car have wheels?", "yes"), ("Is the sun cold?", "no"),
    ]  # fmt: skip
    x, y = rng.randint(1, 50), rng.randint(1, 50)
    cases.append((f"Is {x} greater than {y}?", "yes" if x > y else "no"))
    return "yes_no", system, rng.sample(cases, rng.randint(1, 3))


def secret_word(rng: Random) -> Case:
    """A fact that only the system prompt holds."""
    kind, value = rng.choice((
        ("code word", rng.choice(("tiger", "lemon", "castle", "river", "piano", "ladder", "anchor", "pepper"))),
        ("opening time", f"{rng.randint(6, 11)} am"), ("room number", str(rng.randint(1, 400))), ("user's name",
        rng.choice(FIRST_NAMES)),
        ("favourite colour", rng.choice(COLOURS)), ("price of a ticket", f"${rng.randint(2, 60)}"), ("user's job",
        rng.choice(JOBS)),
        ("closing time", f"{rng.randint(4, 10)} pm"), ("number of rooms", NUMBER_WORDS[rng.randint(2, 20)]),
    ))  # fmt: skip
    system = rng.choice(("The {0} is {1}.", "Remember: the {0} is {1}.", "You are a helpful assistant. The {0} is {1}.",
        "Information for you: {0}: {1}.",
                         "Know this: the {0} is {1}. Be friendly.", "{1} is the {0}.")).format(kind, value)  # fmt: skip
    asked = {"user's name": "my name", "user's job": "my job"}.get(kind, f"the {kind}")
    question = rng.choice(
        ("What is {0}?", "Tell me {0}.", "Can you tell me {0}?", "Do you know {0}?", "{0}?", "I forgot {0}.")
    ).format(asked)
    question = question[0].upper() + question[1:]
    told = asked.replace("my ", "your ")
    answer = rng.choice((f"{told[0].upper()}{told[1:]} is {value}.", f"It is {value}."))
    exchanges = [(question, answer)]
    if rng.random() < 0.3:
        exchanges = [*some_facts(rng, 1, 1), *exchanges]
    return "system_fact", system, exchanges


def user_name(rng: Random) -> Case:
    """Every answer addresses the user by name."""
    name = rng.choice(FIRST_NAMES)
    system = rng.choice(("The user's name is {0}. Use the name in every answer.", "Always address the user as {0}.",
        "Call the user {0} in each reply.",
                         "You talk to {0}. Say the name every time.", "Start every reply with the user's name, {0}.",
                         "Put the name {0} before each answer."))  # fmt: skip
    return "address_user", system.format(name), every_answer(rng, lambda answer: f"{name}, {lowered(answer)}")


STYLE_REQUESTS: dict[str, tuple[str, ...]] = {
    "upper": ("Answer in capital letters.", "Write the answer in upper case.", "Use only capitals in your answer.",
              "Reply in ALL CAPS.", "The answer must be in uppercase.", "Give the answer in capitals."),
    "lower": ("Answer in small letters.", "Write the answer in lower case.", "Use no capitals in your answer.",
              "Reply in lowercase.", "The answer must be in lowercase.", "Give the answer without capital letters."),
    "ending": ('End your answer with "{0}"', 'Finish with the words "{0}"', 'Always end with "{0}"', 'Close with "{0}"',
               'The last words must be "{0}"', 'After the answer write "{0}"'),
    "opening": ('Begin your answer with "{0}"', 'Start with the words "{0}"', 'Always begin with "{0}"',
    'Open with "{0}"',
                'The first words must be "{0}"', 'Before the answer write "{0}"'),
    "json": ('Answer as JSON: {{"answer": "..."}}.', 'Give a JSON object with the key "answer".',
    'Reply in JSON with one key, "answer".',
             'Put the answer into a JSON object under "answer".', 'Output JSON with the key "answer" only.',
             'Use JSON; the key is "answer".'),
    "quotes": ("Put the answer in double quotes.", "Answer in quotation marks.", "Wrap the answer in double quotes.",
               "Your answer must be in quotes.", "Write the answer between double quotes.",
               "Use quotation marks around the answer."),
}  # fmt: skip


def restyled(row: Row, rng: Random) -> Row | None:
    """A row of one short exchange under a style, asked for in a system prompt or at the end of the user's turn.

    None where the row has a system prompt, tools, several turns, or an answer that is long or has lines.
    """
    messages = row["messages"]
    if (
        len(messages) != 2
        or "tools" in row
        or len(messages[1]["content"]) > 250
        or any(c in messages[1]["content"] for c in '\n"{`')
    ):
        return None
    style = rng.choice(sorted(STYLE_REQUESTS))
    answer = messages[1]["content"]
    phrase = rng.choice(ENDINGS if style == "ending" else OPENINGS)
    request = rng.choice(STYLE_REQUESTS[style]).format(phrase)
    changed = {
        "upper": answer.upper(), "lower": answer.lower(), "ending": f"{answer} {phrase}",
        "opening": f"{phrase} {answer}",
        "json": json.dumps({"answer": answer}, ensure_ascii=False), "quotes": f'"{answer}"',
    }[style]  # fmt: skip
    reply = {"role": "assistant", "content": changed}
    if rng.random() < 0.5:
        return {**row, "messages": [{"role": "system", "content": request}, messages[0], reply]}
    return {**row, "messages": [{"role": "user", "content": f"{messages[0]['content']}\n{request}"}, reply]}


CASES: tuple[Callable[[Random], Case], ...] = (
    persona, persona, persona, upper, lower, ending, ending, opening, foreign, foreign, json_only, one_word, yes_no,
    secret_word, secret_word, user_name,
)  # fmt: skip


def system_prompts(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Conversations that follow a system prompt; without end."""
    while True:
        task, system, exchanges = rng.choice(CASES)(rng)
        if rng.random() < 0.12 and task != "persona":
            system = rng.choice(("You are a helpful assistant. ", "You are Micro. ", "Be polite. ")) + system
        yield turns(SOURCE, task, [text for pair in exchanges for text in pair], system=system)
