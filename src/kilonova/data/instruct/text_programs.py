"""Tasks on short texts whose answers a program computes: counting, case, order, search, extraction."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from random import Random

from kilonova.data.instruct.conversation import Row, exchange
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.wording import ask
from kilonova.data.instruct.words import (
    ADJECTIVES,
    ANIMALS,
    ANTONYMS,
    CITIES,
    COLOURS,
    DOMAINS,
    FIRST_NAMES,
    FOODS,
    HOBBIES,
    JOBS,
    MONTHS,
    NOUNS,
    NUMBER_WORDS,
    OBJECTS,
    PAST_VERBS,
    SURNAMES,
    WEEKDAYS,
    plural_of,
)  # fmt: skip

SOURCE = "text_programs"
Task = Callable[[Random], tuple[str, str, str]]


def a(word: str) -> str:
    """The word with its indefinite article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def simple_sentence(rng: Random) -> str:
    """A short plain sentence."""
    name, other = rng.sample(FIRST_NAMES, 2)
    city, thing, animal = rng.choice(CITIES), rng.choice(OBJECTS), rng.choice(ANIMALS)
    colour, food, job = rng.choice(COLOURS), rng.choice(FOODS), rng.choice(JOBS)
    adjective, noun, day = rng.choice(ADJECTIVES), rng.choice(NOUNS), rng.choice(WEEKDAYS)
    past, _ = rng.choice(PAST_VERBS)
    return rng.choice((
        f"{name} {past} {a(thing)} in {city}.",
        f"The {animal} sat near the {noun}.",
        f"{name} and {other} ate {food} on {day}.",
        f"My friend {name} works as {a(job)} in {city}.",
        f"The {colour} {thing} belongs to {name}.",
        f"On {day} we visited the old {noun}.",
        f"{name} likes {rng.choice(HOBBIES)} and {food}.",
        f"There is {a(adjective)} {animal} in the {noun}.",
        f"She {past} the {thing} because it was {adjective}.",
        f"The {job} {past} {a(adjective)} {thing}.",
        f"In {rng.choice(MONTHS)} the {noun} is very {rng.choice(('quiet', 'cold', 'warm', 'busy', 'bright'))}.",
        f"{name} told {other} about the {adjective} {noun}.",
        f"We saw {a(colour)} {animal} behind the {noun}.",
        f"The road to {city} goes past the {noun}.",
        f"Every {day} {name} buys {food} at the market.",
        f"{name} was {adjective}, but {other} was not.",
    ))  # fmt: skip


def sentence_text(rng: Random, low: int = 1, high: int = 3) -> str:
    """A few plain sentences."""
    return " ".join(simple_sentence(rng) for _ in range(rng.randint(low, high)))


def word_of(rng: Random) -> str:
    """One common word."""
    return rng.choice(rng.choice((OBJECTS, ANIMALS, NOUNS, COLOURS, JOBS, ADJECTIVES)))


def count_words(rng: Random) -> tuple[str, str, str]:
    """How many words."""
    text = simple_sentence(rng)
    instructions = ("How many words are in this sentence?", "Count the words.", "Give the number of words in the text.",
                    "What is the word count?", "How many words does the text have?",
                    "Count how many words there are.")  # fmt: skip
    return "count_words", ask(rng, instructions, text), str(len(text.split()))


def count_letter(rng: Random) -> tuple[str, str, str]:
    """How often a letter occurs in a word."""
    word = word_of(rng)
    letter = rng.choice(word) if rng.random() < 0.8 else rng.choice("abcdefghijklmnopqrstuvwxyz")
    prompt = rng.choice((
        "How many times does the letter {letter} occur in {word}?", "Count the letter {letter} in the word {word}.",
        'How often is "{letter}" in "{word}"?', "How many {letter}s are in {word}?",
        "In the word {word}, how many times is the letter {letter} used?", "{word}: count the letter {letter}.",
    )).format(letter=letter, word=word)  # fmt: skip
    return "count_letter", prompt, str(word.count(letter))


def word_length(rng: Random) -> tuple[str, str, str]:
    """How many letters a word has."""
    word = word_of(rng)
    instructions = ("How many letters are in this word?", "Count the letters.", "How long is this word in letters?",
                    "Give the number of letters.", "What is the length of the word?",
                    "Count the characters of the word.")  # fmt: skip
    return "word_length", ask(rng, instructions, word, ("Word",)), str(len(word))


def uppercase(rng: Random) -> tuple[str, str, str]:
    """Capital letters."""
    text = simple_sentence(rng)
    instructions = ("Write this in capital letters.", "Convert the text to uppercase.", "Make all letters uppercase.",
                    "Put this in upper case.", "Rewrite the sentence in ALL CAPS.",
                    "Change every letter to a capital.")  # fmt: skip
    return "uppercase", ask(rng, instructions, text), text.upper()


def lowercase(rng: Random) -> tuple[str, str, str]:
    """Small letters."""
    text = simple_sentence(rng)
    text = text.upper() if rng.random() < 0.5 else text
    instructions = ("Write this in small letters.", "Convert the text to lowercase.", "Make all letters lowercase.",
                    "Put this in lower case.", "Rewrite the sentence without capitals.",
                    "Change every letter to lower case.")  # fmt: skip
    return "lowercase", ask(rng, instructions, text), text.lower()


def title_case(rng: Random) -> tuple[str, str, str]:
    """A capital at the start of each word."""
    text = simple_sentence(rng).rstrip(".").lower()
    instructions = ("Capitalise the first letter of every word.", "Write this in title case.",
        "Start each word with a capital.",
                    "Convert to title case.", "Give every word a capital first letter.",
                    "Make this look like a title: each word capitalised.")  # fmt: skip
    return "title_case", ask(rng, instructions, text), " ".join(word.capitalize() for word in text.split())


def reverse_words(rng: Random) -> tuple[str, str, str]:
    """The words backwards."""
    words = [word_of(rng) for _ in range(rng.randint(3, 6))]
    instructions = ("Reverse the order of the words.", "Write the words in reverse order.",
        "Say these words backwards, last word first.",
                    "Put the words in the opposite order.", "Turn the word order around.",
                    "List the words from last to first.")  # fmt: skip
    return "reverse_words", ask(rng, instructions, " ".join(words), ("Words", "Text")), " ".join(reversed(words))


def reverse_letters(rng: Random) -> tuple[str, str, str]:
    """A word spelled backwards."""
    word = rng.choice([word for word in (word_of(rng) for _ in range(6)) if len(word) < 7] or ["cat"])
    instructions = ("Write the word backwards.", "Reverse the letters.", "Spell this word backwards.",
                    "What is this word from right to left?", "Reverse this string.",
                    "Turn the letters around.")  # fmt: skip
    return "reverse_letters", ask(rng, instructions, word, ("Word",)), word[::-1]


def nth_word(rng: Random) -> tuple[str, str, str]:
    """The first, second, third or last word."""
    words = simple_sentence(rng).rstrip(".").replace(",", "").split()
    which = rng.choice(("first", "second", "third", "last"))
    answer = words[{"first": 0, "second": 1, "third": 2, "last": -1}[which]]
    instructions = tuple(text.format(which=which) for text in (
        "What is the {which} word of this sentence?", "Give the {which} word.", "Write only the {which} word.",
        "Which word comes {which}?", "Copy the {which} word of the text.",
        "Return the {which} word, nothing else."))  # fmt: skip
    return "nth_word", ask(rng, instructions, " ".join(words)), answer


def copy_text(rng: Random) -> tuple[str, str, str]:
    """Say the same."""
    text = sentence_text(rng)
    instructions = ("Repeat this exactly.", "Copy the text.", "Say this back to me.", "Write the same text again.",
                    "Echo the following.", "Repeat after me.")  # fmt: skip
    return "copy", ask(rng, instructions, text), text


def repeat_times(rng: Random) -> tuple[str, str, str]:
    """A word several times."""
    word, times = word_of(rng), rng.randint(2, 5)
    prompt = rng.choice((
        "Write the word {word} {times} times.", "Repeat {word} {times} times.", "Say {word} {times} times.",
        'Print "{word}" {times} times, with spaces.', "{times} times the word {word}, please.",
        "Type {word} {times} times in a row.",
    )).format(word=word, times=rng.choice((str(times), NUMBER_WORDS[times])))  # fmt: skip
    return "repeat", prompt, " ".join([word] * times)


def replace_word(rng: Random) -> tuple[str, str, str]:
    """One word for another."""
    text = simple_sentence(rng)
    old = rng.choice([word for word in re.findall(r"[A-Za-z]+", text) if len(word) > 2])
    new = word_of(rng)
    prompt = rng.choice((
        'Replace "{old}" with "{new}": {text}', "Replace the word {old} with {new}.\n\n{text}",
        "Change {old} to {new} in this text.\n{text}",
        "{text}\n\nRewrite the sentence with {new} instead of {old}.", "Swap {old} for {new}: {text}",
        "Put {new} where it says {old}.\nText: {text}",
    )).format(old=old, new=new, text=text)  # fmt: skip
    return "replace_word", prompt, re.sub(rf"\b{old}\b", new, text)


def remove_word(rng: Random) -> tuple[str, str, str]:
    """A list of words without one of them."""
    words = rng.sample(sorted({word_of(rng) for _ in range(9)}), 5)
    gone = rng.choice(words)
    prompt = rng.choice((
        "Remove {gone} from this list: {words}", "Delete the word {gone}.\n{words}",
        "{words}\n\nWrite the list without {gone}.",
        "Leave out {gone}: {words}", "Take {gone} out of the list.\nList: {words}",
        "Cross out {gone} and give the rest: {words}",
    )).format(gone=gone, words=", ".join(words))  # fmt: skip
    return "remove_word", prompt, ", ".join(word for word in words if word != gone)


def contains_word(rng: Random) -> tuple[str, str, str]:
    """Whether a word is in a text."""
    text = sentence_text(rng)
    inside = re.findall(r"[A-Za-z]+", text)
    word = rng.choice(inside) if rng.random() < 0.5 else word_of(rng)
    prompt = rng.choice((
        'Does the text contain the word "{word}"? Answer yes or no.\n{text}',
        "Is the word {word} in this text? yes/no\n\n{text}",
        "{text}\n\nDoes {word} occur above? Answer yes or no.",
        "Yes or no: the text has the word {word}.\nText: {text}",
        "Check if {word} appears in the sentence: {text} Answer yes or no.",
        "Can you find the word {word} here? Answer yes or no.\n{text}",
    )).format(word=word, text=text)  # fmt: skip
    return "contains_word", prompt, "yes" if word in inside else "no"


def starts_with(rng: Random) -> tuple[str, str, str]:
    """Whether a word starts or ends with a letter."""
    word, where = word_of(rng), rng.choice(("start", "end"))
    edge = word[0] if where == "start" else word[-1]
    letter = edge if rng.random() < 0.5 else rng.choice("abcdefghijklmnoprstuvw")
    prompt = rng.choice((
        "Does the word {word} {where} with {letter}? Answer yes or no.",
        "Yes or no: {word} {where}s with the letter {letter}.",
        "Is it true that {word} {where}s with {letter}? yes or no",
        "Check: does {word} {where} with {letter}? (yes/no)",
        '"{word}" {where}s with "{letter}". Yes or no?',
        "Answer yes or no. Does {word} {where} with the letter {letter}?",
    )).format(word=word, where=where, letter=letter)  # fmt: skip
    return f"{where}s_with", prompt, "yes" if edge == letter else "no"


def opposite(rng: Random) -> tuple[str, str, str]:
    """The opposite of a word."""
    pair = rng.sample(rng.choice(ANTONYMS), 2)
    instructions = ("What is the opposite of this word?", "Give the opposite.", "Name the antonym.",
        "Write the opposite.",
                    "Which word means the contrary?", "Say the opposite of the following.")  # fmt: skip
    return "opposite", ask(rng, instructions, pair[0], ("Word",)), pair[1]


def email_of(rng: Random) -> str:
    """An invented e-mail address."""
    return f"{rng.choice(FIRST_NAMES)}.{rng.choice(SURNAMES)}@{rng.choice(DOMAINS)}".lower()


def date_of(rng: Random) -> str:
    """A date in one of three styles."""
    day, month, year = rng.randint(1, 28), rng.choice(MONTHS), rng.randint(1950, 2030)
    return rng.choice(
        (f"{day} {month} {year}", f"{month} {day}, {year}", f"{year}-{MONTHS.index(month) + 1:02}-{day:02}")
    )


def fact_sentences(rng: Random) -> tuple[dict[str, list[str]], str]:
    """Sentences with an e-mail address, date, phone number, name, city and price, and what they hold by kind."""
    name, city = f"{rng.choice(FIRST_NAMES)} {rng.choice(SURNAMES)}", rng.choice(CITIES)
    email, date, price = email_of(rng), date_of(rng), f"${rng.randint(2, 900)}"
    phone = f"{rng.randint(200, 999)}-{rng.randint(200, 999)}-{rng.randint(1000, 9999)}"
    parts = [
        (
            {"email address": email, "name": name},
            rng.choice((f"Please write to {name} at {email}.", f"{name} can be reached at {email}.")),
        ),
        ({"date": date}, rng.choice((f"The meeting is on {date}.", f"It starts on {date}.", f"We opened on {date}."))),
        ({"phone number": phone}, rng.choice((f"Call {phone} for help.", f"The number is {phone}."))),
        ({"price": price}, rng.choice((f"A ticket costs {price}.", f"The price is {price}."))),
        ({"city": city}, rng.choice((f"We meet in {city}.", f"The office is in {city}."))),
    ]
    chosen = rng.sample(parts, rng.randint(2, 4))
    kinds: dict[str, list[str]] = {}
    for found, _ in chosen:
        for kind, value in found.items():
            kinds.setdefault(kind, []).append(value)
    text = " ".join(part for _, part in chosen)
    if rng.random() < 0.3:
        text += " " + rng.choice(("See you soon.", "Thank you.", "Do not be late.", "Bring a friend."))
    return kinds, text


def extract_one(rng: Random) -> tuple[str, str, str]:
    """One named kind of fact from a text, or "none"."""
    kinds, text = fact_sentences(rng)
    kind = rng.choice(sorted(kinds))
    answer = kinds[kind][0]
    if rng.random() < 0.12:
        kind = rng.choice(
            [other for other in ("email address", "date", "phone number", "price") if other not in kinds] or [kind]
        )
        answer = kinds.get(kind, ["none"])[0]
    instructions = tuple(template.format(kind=kind) for template in (
        "Extract the {kind}.", "What is the {kind} in this text?", "Find the {kind}.", "Give me only the {kind}.",
        "Which {kind} is mentioned?", "Copy the {kind} from the message.",
        "Return the {kind}; write none if there is none."))  # fmt: skip
    return "extract", ask(rng, instructions, text, ("Text", "Message")), answer


def extract_numbers(rng: Random) -> tuple[str, str, str]:
    """All numbers of a text."""
    numbers = [str(rng.randint(2, 500)) for _ in range(rng.randint(1, 3))]
    text = " ".join(
        rng.choice((f"There are {number} {plural_of(rng.choice(OBJECTS))} in the {rng.choice(NOUNS)}.",
                    f"{rng.choice(FIRST_NAMES)} has {number} {plural_of(rng.choice(ANIMALS))}.",
                    f"The bus number {number} goes to {rng.choice(CITIES)}."))
        for number in numbers
    )  # fmt: skip
    instructions = ("Extract all numbers.", "List the numbers in the text.", "Which numbers occur here?",
        "Find every number.",
                    "Give me the numbers, separated by commas.", "What numbers are mentioned?")  # fmt: skip
    return "extract_numbers", ask(rng, instructions, text), ", ".join(numbers)


def extract_names(rng: Random) -> tuple[str, str, str]:
    """All first names of a text."""
    names = rng.sample(FIRST_NAMES, rng.randint(2, 3))
    text = rng.choice((
        "{0} met {1} at the " + rng.choice(NOUNS) + ".", "{0} gave {1} " + a(rng.choice(OBJECTS)) + ".",
        "Yesterday {0} and {1} went to " + rng.choice(CITIES) + ".",
    )).format(*names)  # fmt: skip
    if len(names) == 3:
        text += f" Later {names[2]} came too."
    instructions = ("List the names of the people.", "Extract the names.", "Who is mentioned?",
        "Find all people in the text.",
                    "Which persons occur here?", "Give the names, separated by commas.")  # fmt: skip
    return "extract_names", ask(rng, instructions, text), ", ".join(names)


def question_of_sentence(rng: Random) -> tuple[str, str, str]:
    """Who, what, where or when, answered from one sentence."""
    name, day, city = rng.choice(FIRST_NAMES), rng.choice(WEEKDAYS), rng.choice(CITIES)
    (past, base), thing, other = rng.choice(PAST_VERBS), rng.choice(OBJECTS), simple_sentence(rng)
    text = f"On {day} {name} {past} {a(thing)} in {city}."
    question, answer = rng.choice((
        (f"Who {past} {a(thing)}?", name), (f"What did {name} {base}?", a(thing)),
        (f"When did {name} {base} {a(thing)}?", f"on {day}"),
        (f"Where did {name} {base} {a(thing)}?", f"in {city}"),
    ))  # fmt: skip
    passage = " ".join(rng.sample([text, other], 2)) if name not in other else text
    prompt = rng.choice(("{passage}\n{question}", "{passage}\n\nQuestion: {question}",
        "Text: {passage}\nQuestion: {question}\nAnswer:",
                         "Answer from the text.\n{passage}\n{question}", "{question}\n\n{passage}",
                         "Read: {passage} {question}"))  # fmt: skip
    return "sentence_question", prompt.format(passage=passage, question=question), answer


TASKS: tuple[Task, ...] = (
    count_words, count_letter, word_length, uppercase, lowercase, title_case, reverse_words, reverse_letters, nth_word,
    copy_text,
    repeat_times, replace_word, remove_word, contains_word, starts_with, opposite, extract_one, extract_one,
    extract_numbers,
    extract_names, question_of_sentence, question_of_sentence,
)  # fmt: skip


def text_programs(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Program tasks on short texts; without end."""
    while True:
        task, prompt, answer = rng.choice(TASKS)(rng)
        yield exchange(SOURCE, task, prompt, answer)
