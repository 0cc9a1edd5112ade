"""Tasks on lists, numbers and formats whose answers a program computes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

from kilonova.data.instruct.conversation import Row, exchange
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.text_programs import Task, email_of, word_of
from kilonova.data.instruct.wording import ask, listing
from kilonova.data.instruct.words import (
    ANIMALS,
    CATEGORIES,
    CITIES,
    COLOURS,
    FIRST_NAMES,
    FRUITS,
    HOBBIES,
    JOBS,
    MONTHS,
    NUMBER_WORDS,
    OBJECTS,
    VEGETABLES,
    WEEKDAYS,
    plural_of,
)  # fmt: skip

SOURCE = "list_programs"


def some_words(rng: Random, low: int = 3, high: int = 6) -> list[str]:
    """Different words of one or several kinds."""
    pool = rng.choice((FRUITS, ANIMALS, COLOURS, OBJECTS, VEGETABLES, JOBS, FIRST_NAMES, tuple(CITIES)))
    return rng.sample(sorted(pool), rng.randint(low, high))


def sort_words(rng: Random) -> tuple[str, str, str]:
    """Alphabetical order."""
    words = some_words(rng)
    instructions = ("Sort these words alphabetically.", "Put the words in alphabetical order.",
        "Order this list from A to Z.",
                    "Arrange the words alphabetically.", "Sort the list by letter.",
                    "Write the list in alphabetical order.")  # fmt: skip
    bulleted = rng.random() < 0.25
    shown = "\n".join(f"- {word}" for word in words) if bulleted else ", ".join(words)
    ordered = sorted(words)
    answer = "\n".join(f"- {word}" for word in ordered) if bulleted else ", ".join(ordered)
    return "sort_words", ask(rng, instructions, shown, ("Words", "List")), answer


def sort_numbers(rng: Random) -> tuple[str, str, str]:
    """Numerical order."""
    numbers = rng.sample(range(1, rng.choice((20, 100, 1000))), rng.randint(3, 6))
    down = rng.random() < 0.4
    way = rng.choice(
        ("from largest to smallest", "in descending order")
        if down
        else ("from smallest to largest", "in ascending order")
    )
    instructions = tuple(text.format(way=way) for text in (
        "Sort these numbers {way}.", "Put the numbers in order, {way}.", "Order the numbers {way}.", "Arrange {way}.",
        "Write the numbers {way}.", "List these numbers {way}."))  # fmt: skip
    ordered = sorted(numbers, reverse=down)
    return (
        "sort_numbers",
        ask(rng, instructions, ", ".join(map(str, numbers)), ("Numbers",)),
        ", ".join(map(str, ordered)),
    )


def extreme_number(rng: Random) -> tuple[str, str, str]:
    """The largest or smallest number."""
    numbers = rng.sample(range(1, rng.choice((20, 100, 1000))), rng.randint(2, 5))
    largest = rng.random() < 0.5
    word = rng.choice(("largest", "biggest", "highest") if largest else ("smallest", "lowest"))
    instructions = tuple(text.format(word=word) for text in (
        "Which number is the {word}?", "Find the {word} number.", "What is the {word} of these numbers?",
        "Give the {word} number.",
        "Pick the {word} number.", "Name the {word}."))  # fmt: skip
    answer = max(numbers) if largest else min(numbers)
    return "extreme_number", ask(rng, instructions, ", ".join(map(str, numbers)), ("Numbers",)), str(answer)


def count_items(rng: Random) -> tuple[str, str, str]:
    """How many items a list has."""
    words = some_words(rng, 2, 9)
    instructions = ("How many items are in this list?", "Count the items.", "How long is the list?",
        "Give the number of items.",
                    "How many things are listed?", "Count how many entries there are.")  # fmt: skip
    return "count_items", ask(rng, instructions, listing(rng, words).strip(), ("List",)), str(len(words))


def nth_item(rng: Random) -> tuple[str, str, str]:
    """The item at a place."""
    words = some_words(rng, 4, 6)
    names = ("first", "second", "third", "fourth")
    place = rng.randrange(4)
    which, answer = ("last", words[-1]) if rng.random() < 0.2 else (names[place], words[place])
    instructions = tuple(text.format(which=which) for text in (
        "What is the {which} item of the list?", "Give the {which} item.", "Which item is {which}?",
        "Name the {which} element.",
        "Pick the {which} entry.", "Return the {which} word of the list."))  # fmt: skip
    return "nth_item", ask(rng, instructions, listing(rng, words).strip(), ("List",)), answer


def odd_one_out(rng: Random) -> tuple[str, str, str]:
    """The item that does not belong."""
    kind, other = rng.sample(sorted(CATEGORIES), 2)
    stranger = rng.choice(sorted(CATEGORIES[other]))
    words = rng.sample(sorted(word for word in CATEGORIES[kind] if word != stranger), 3)
    while stranger in CATEGORIES[kind]:
        stranger = rng.choice(sorted(CATEGORIES[other]))
    shown = [*words, stranger]
    rng.shuffle(shown)
    instructions = ("Which word does not belong?", "Find the odd one out.", "Which one is different from the others?",
                    "One word does not fit. Which?", "Name the odd one out.",
                    "Which item is out of place?")  # fmt: skip
    return "odd_one_out", ask(rng, instructions, ", ".join(shown), ("Words", "List")), stranger


def pick_category(rng: Random) -> tuple[str, str, str]:
    """The members of one kind among mixed words."""
    kind, other = rng.sample(sorted(CATEGORIES), 2)
    members = rng.sample(sorted(set(CATEGORIES[kind]) - set(CATEGORIES[other])), rng.randint(1, 3))
    strangers = rng.sample(sorted(set(CATEGORIES[other]) - set(CATEGORIES[kind])), rng.randint(1, 3))
    shown = [*members, *strangers]
    rng.shuffle(shown)
    instructions = tuple(text.format(kind=kind) for text in (
        "Which of these words name a {kind}?", "List only the words that are a {kind}.", "Pick every {kind}.",
        "Find each {kind} in the list.",
        "Keep only words of the kind: {kind}.", "Filter the list: {kind} only."))  # fmt: skip
    return (
        "pick_category",
        ask(rng, instructions, ", ".join(shown), ("Words", "List")),
        ", ".join(w for w in shown if w in members),
    )


def name_category(rng: Random) -> tuple[str, str, str]:
    """The kind of a word, from a list of kinds."""
    kind = rng.choice(sorted(CATEGORIES))
    word = rng.choice(sorted(w for w in CATEGORIES[kind] if sum(w in members for members in CATEGORIES.values()) == 1))
    kinds = [kind, *rng.sample([other for other in CATEGORIES if other != kind], rng.randint(2, 4))]
    rng.shuffle(kinds)
    prompt = rng.choice((
        "Is {word} a kind of {kinds}?", "What is {word}? Choose from: {kinds}.",
        "Classify the word {word}. Classes: {kinds}",
        "Which category does {word} belong to?\nCategories: {kinds}", "{word}: which of these fits, {kinds}?",
        "Label {word} with one of: {kinds}",
    )).format(word=word, kinds=", ".join(kinds))  # fmt: skip
    return "name_category", prompt, kind


def to_bullets(rng: Random) -> tuple[str, str, str]:
    """A comma list as bullets or numbers."""
    words = some_words(rng)
    numbered = rng.random() < 0.5
    style = rng.choice(("numbered list", "list with numbers") if numbered else ("bullet list", "list with dashes"))
    instructions = tuple(text.format(style=style) for text in (
        "Turn this into a {style}.", "Write the items as a {style}.", "Make a {style}.", "Format as a {style}.",
        "Show these as a {style}.", "Give me a {style} of the following."))  # fmt: skip
    answer = "\n".join(f"{i}. {word}" if numbered else f"- {word}" for i, word in enumerate(words, 1))
    return "to_list", ask(rng, instructions, ", ".join(words), ("Items",)), answer


def to_commas(rng: Random) -> tuple[str, str, str]:
    """Bullets as a comma list."""
    words = some_words(rng)
    instructions = ("Write the items on one line, separated by commas.", "Join the list with commas.",
        "Turn the list into a comma list.",
                    "Put everything on one line with commas.", "Make this comma separated.",
                    "Convert the bullets to a comma list.")  # fmt: skip
    return "to_commas", ask(rng, instructions, "\n".join(f"- {word}" for word in words), ("List",)), ", ".join(words)


def person_json(rng: Random) -> tuple[str, str, str]:
    """Facts about a person as JSON."""
    name, age, city, job = rng.choice(FIRST_NAMES), rng.randint(18, 90), rng.choice(CITIES), rng.choice(JOBS)
    article = "an" if job[0] in "aeiou" else "a"
    facts: dict[str, object] = {"name": name, "age": age, "city": city, "job": job}
    if rng.random() < 0.3:
        facts["email"] = email_of(rng)
    text = rng.choice((
        f"{name} is {age} years old, lives in {city} and works as {article} {job}.",
        f"{name}, {age}, is {article} {job} from {city}.",
        f"My neighbour {name} is {article} {job} in {city}. {name} is {age}.",
    ))  # fmt: skip
    if "email" in facts:
        text += f" E-mail: {facts['email']}."
    keys = rng.sample(sorted(facts), rng.randint(2, len(facts)))
    instructions = tuple(template.format(keys=", ".join(keys)) for template in (
        "Extract {keys} as JSON.", "Write a JSON object with the keys {keys}.", "Return JSON with {keys}.",
        "Convert to JSON ({keys}).",
        "Give me {keys} in JSON format.", "Put {keys} into a JSON object. Only output JSON."))  # fmt: skip
    return (
        "person_json",
        ask(rng, instructions, text),
        json.dumps({key: facts[key] for key in keys}, ensure_ascii=False),
    )


def list_json(rng: Random) -> tuple[str, str, str]:
    """Words as a JSON array."""
    words = some_words(rng)
    instructions = ("Write this as a JSON array.", "Convert the list to JSON.",
        "Turn the items into a JSON list of strings.",
                    "Give a JSON array of these words.", "Format as JSON array.", "JSON array, please.")  # fmt: skip
    return "list_json", ask(rng, instructions, ", ".join(words), ("Items",)), json.dumps(words, ensure_ascii=False)


def json_lookup(rng: Random) -> tuple[str, str, str]:
    """A value from a JSON object."""
    facts = {"name": rng.choice(FIRST_NAMES), "age": rng.randint(5, 90), "city": rng.choice(CITIES),
        "colour": rng.choice(COLOURS),
             "hobby": rng.choice(HOBBIES), "pet": rng.choice(ANIMALS)}  # fmt: skip
    keys = rng.sample(sorted(facts), rng.randint(3, 5))
    key = rng.choice(keys)
    prompt = rng.choice((
        "{text}\nWhat is the {key}?", "{text}\n\nGive the value of {key}.", "Read the JSON and give the {key}.\n{text}",
        "From this object, return {key}: {text}", "Which {key} does the object have?\n{text}",
        "JSON: {text}\nKey: {key}\nValue:",
    )).format(text=json.dumps({k: facts[k] for k in keys}), key=key)  # fmt: skip
    return "json_lookup", prompt, str(facts[key])


def arithmetic(rng: Random) -> tuple[str, str, str]:
    """One operation on two whole numbers."""
    operator = rng.choice(("+", "+", "-", "-", "*", "/"))
    if operator in "+-":
        x, y = rng.randint(0, 99), rng.randint(0, 99)
        x, y = (max(x, y), min(x, y)) if operator == "-" else (x, y)
        answer = x + y if operator == "+" else x - y
    else:
        x, y = rng.randint(1, 12), rng.randint(1, 12)
        answer = x * y
        if operator == "/":
            x, answer = answer, x
    word = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}[operator]
    shown = {"*": rng.choice(("*", "x", "×")), "/": rng.choice(("/", "÷"))}.get(operator, operator)
    prompt = rng.choice((
        "What is {x} {shown} {y}?", "{x} {shown} {y} =", "Calculate {x} {shown} {y}.", "What is {x} {word} {y}?",
        "{x} {word} {y}",
        "Compute: {x} {shown} {y}", "How much is {x} {word} {y}?", "Work out {x} {shown} {y}",
        "Solve {x} {shown} {y}. Only the number.",
    )).format(x=x, y=y, shown=shown, word=word)  # fmt: skip
    return "arithmetic", prompt, str(answer)


def small_story_sum(rng: Random) -> tuple[str, str, str]:
    """A one-step word problem."""
    name, other = rng.sample(FIRST_NAMES, 2)
    thing, x, y = rng.choice(FRUITS), rng.randint(2, 20), rng.randint(1, 20)
    plural = plural_of(thing)
    if rng.random() < 0.5:
        text, answer = f"{name} has {x} {plural}. {other} gives {name} {y} more.", x + y
        question = f"How many {plural} does {name} have now?"
    else:
        x = x + y
        text, answer = f"{name} has {x} {plural} and gives {y} of them to {other}.", x - y
        question = f"How many {plural} does {name} have left?"
    prompt = rng.choice(("{text} {question}", "{text}\n{question}", "{text} {question} Answer with a number.",
        "Problem: {text} {question}",
                         "Solve: {text} {question}", "{text}\nQuestion: {question}\nAnswer:"))  # fmt: skip
    return "small_word_problem", prompt.format(text=text, question=question), str(answer)


def compare_numbers(rng: Random) -> tuple[str, str, str]:
    """A yes or no question about numbers."""
    x, y = rng.randint(0, 100), rng.randint(0, 100)
    kind = rng.choice(("greater than", "less than", "even", "odd"))
    if kind in ("even", "odd"):
        claim, true = f"{x} is {kind}", x % 2 == (kind == "odd")
    else:
        claim, true = f"{x} is {kind} {y}", x > y if kind == "greater than" else x < y
    prompt = rng.choice(("True or false: {0}.", "Is it true that {0}? Answer true or false.", "{0}. True or false?",
                         "Say true or false: {0}", "Check the statement and answer true or false. {0}.",
                         "Statement: {0}.\nTrue or false?"))  # fmt: skip
    return "compare_numbers", prompt.format(claim), "true" if true else "false"


def next_in_sequence(rng: Random) -> tuple[str, str, str]:
    """The next day, month, number or letter."""
    kind = rng.randrange(4)
    if kind == 0:
        names = rng.choice((WEEKDAYS, MONTHS))
        at = rng.randrange(len(names))
        way = rng.choice(("after", "before"))
        answer = names[(at + (1 if way == "after" else -1)) % len(names)]
        prompt = rng.choice(("What comes {way} {name}?", "Which {unit} comes {way} {name}?",
            "Name the {unit} {way} {name}.",
                             "{name}: which {unit} is right {way} it?", "The {unit} {way} {name} is?",
                             "Tell me the {unit} {way} {name}."))  # fmt: skip
        prompt = prompt.format(way=way, name=names[at], unit="day" if names is WEEKDAYS else "month")
    else:
        start, step = rng.randint(1, 30), rng.randint(1, 10) if kind < 3 else -rng.randint(1, 5)
        start = start if step > 0 else start + 40
        shown = ", ".join(str(start + step * i) for i in range(4))
        answer = str(start + step * 4)
        prompt = rng.choice(("What comes next: {0}?", "Continue the sequence with one number: {0}",
            "Next number: {0}, ...", "{0}, ?",
                             "Find the next number.\n{0}", "Which number follows? {0}")).format(shown)  # fmt: skip
    return "sequence", prompt, answer


def number_words(rng: Random) -> tuple[str, str, str]:
    """Numbers to words and back, up to twenty."""
    number = rng.randint(0, 20)
    if rng.random() < 0.5:
        instructions = ("Write this number as a word.", "Spell the number.", "How is this number written in letters?",
            "Number to word.",
                        "Say the number in words.", "Give the English word for this number.")  # fmt: skip
        return "number_to_word", ask(rng, instructions, str(number), ("Number",)), NUMBER_WORDS[number]
    instructions = ("Write this as a digit.", "Give the number in figures.", "Word to number.",
        "Which number is this? Use digits.",
                    "Convert the word to a number.", "Write the number in digits.")  # fmt: skip
    return "word_to_number", ask(rng, instructions, NUMBER_WORDS[number], ("Word",)), str(number)


def combine_words(rng: Random) -> tuple[str, str, str]:
    """Words joined in a requested way."""
    words = [word_of(rng) for _ in range(rng.randint(2, 4))]
    name, joint = rng.choice(
        (
            ("hyphens", "-"),
            ("underscores", "_"),
            ("slashes", "/"),
            ("plus signs", "+"),
            ("spaces", " "),
            ("commas", ","),
        )
    )
    instructions = tuple(text.format(name=name) for text in (
        "Join the words with {name}.", "Put {name} between the words.", "Connect these words by {name}.",
        "Write the words with {name} between them.",
        "Combine with {name}.", "Use {name} to join the words."))  # fmt: skip
    return "join_words", ask(rng, instructions, "; ".join(words), ("Words",)), joint.join(words)


TASKS: tuple[Task, ...] = (
    sort_words, sort_words, sort_numbers, extreme_number, count_items, nth_item, odd_one_out, pick_category,
    name_category, name_category,
    to_bullets, to_commas, person_json, person_json, list_json, json_lookup, arithmetic, arithmetic, arithmetic,
    small_story_sum,
    compare_numbers, next_in_sequence, number_words, combine_words,
)  # fmt: skip


def list_programs(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Program tasks on lists, numbers and formats; without end."""
    while True:
        task, prompt, answer = rng.choice(TASKS)(rng)
        yield exchange(SOURCE, task, prompt, answer)
