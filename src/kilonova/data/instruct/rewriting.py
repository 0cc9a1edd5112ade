"""Rewriting tasks: splitting and joining sentences, reading levels, and the short tasks of instruction induction."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from kilonova.data.instruct.conversation import Row, clip, exchange, shuffled
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.wording import ask

SPLIT_INSTRUCTIONS = (
    "Split the sentence into two shorter sentences.",
    "Rewrite this long sentence as two sentences.",
    "Break the sentence in two.",
    "Make two simple sentences out of this one.",
    "Say the same thing in two sentences.",
    "Divide the following sentence into two, keeping its meaning.",
)
JOIN_INSTRUCTIONS = (
    "Join the two sentences into one.",
    "Combine these sentences into a single sentence.",
    "Rewrite the two sentences as one.",
    "Merge the following sentences.",
    "Make one sentence out of these two.",
    "Say this in one sentence.",
)
SIMPLIFY_INSTRUCTIONS = (
    "Rewrite the text in simple English.",
    "Simplify this text for a beginner.",
    "Make this text easier to read.",
    "Rewrite this in plain words.",
    "Explain the following in easier English.",
    "Turn this into an easy text for learners.",
)
LEVEL_INSTRUCTIONS = (
    "Is this text elementary, intermediate or advanced English?",
    "What is the reading level of the text: elementary, intermediate or advanced?",
    "Judge how hard the text is. Answer elementary, intermediate or advanced.",
    "Give the level of this text (elementary, intermediate, advanced).",
    "For which learners is this text: elementary, intermediate or advanced?",
    "Classify the difficulty as elementary, intermediate or advanced.",
)
LEFT_OUT_TASKS = {"sentiment"}
INDUCTION_INSTRUCTIONS = {
    "active_to_passive": ("Put this sentence into the passive voice.", "Make the sentence passive.",
                          "Change the sentence to passive voice."),
    "antonyms": ("What is the opposite of this word?", "Give an antonym.", "Write a word with the opposite meaning."),
    "cause_and_effect": ("Which of the two sentences is the cause?", "Find the cause.", "Write the cause sentence."),
    "common_concept": ("What do these things have in common?", "Name what they share.",
                       "Find a common feature of these things."),
    "diff": ("Subtract the second number from the first.", "What is the difference of the two numbers?",
             "First number minus second number, please."),
    "first_word_letter": ("What is the first letter of this word?", "Give the first letter.",
                          "Which letter does the word start with?"),
    "informal_to_formal": ("Make this sentence formal.", "Rewrite it in a formal style.",
                           "Say this more formally."),
    "larger_animal": ("Which animal is bigger?", "Name the larger of the two animals.", "Pick the larger animal."),
    "letters_list": ("Spell the word, with a space between the letters.", "Spell this word.",
                     "Write the letters of the word one by one."),
    "negation": ("Negate the sentence.", "Write the negation of this sentence.",
                 "Make the sentence say the opposite."),
    "num_to_verbal": ("Write the number in words.", "Spell out this number.", "How is this number written in words?"),
    "orthography_starts_with": ("Which words start with the letter in brackets?",
                                "List the words that begin with the letter in brackets.",
                                "Find the words of the sentence starting with the letter in [ ]."),
    "rhymes": ("Give a word that rhymes.", "What rhymes with this word?", "Find a rhyme for the word."),
    "second_word_letter": ("What is the second letter of this word?", "Give the second letter.",
                           "Name the letter in second place."),
    "sentence_similarity": (
        "How similar are the sentences, from 0 - definitely not to 5 - perfectly?",
        "Do both sentences describe the same event? Rate from 0 - definitely not to 5 - perfectly.",
        "Rate the similarity on this scale: 0 - definitely not, 1 - probably not, 2 - possibly, 3 - probably, "
        "4 - almost perfectly, 5 - perfectly."),
    "singular_to_plural": ("What is the plural of this word?", "Give the plural.", "Write the plural form."),
    "sum": ("Add the two numbers.", "What is the sum of the numbers?", "Sum up these numbers."),
    "synonyms": ("Give a synonym.", "What is another word for this?", "Write a word with a similar meaning."),
    "taxonomy_animal": ("Which of these are animals?", "List only the animals.", "Pick out the animals."),
    "translation_en-de": ("Translate this word into German.", "What is this word in German?", "Say it in German."),
    "translation_en-es": ("Translate this word into Spanish.", "What is this word in Spanish?", "Say it in Spanish."),
    "translation_en-fr": ("Translate this word into French.", "What is this word in French?", "Say it in French."),
    "word_in_context": (
        "Does the word mean the same in both sentences? Answer same or not the same.",
        "Is the meaning of the word the same in the two sentences? Say same or not the same.",
        "Same meaning of the word or not? Answer same or not the same."),
}  # fmt: skip


def detokenise(text: str) -> str:
    """Joins the spaced-out punctuation of tokenised text to its words."""
    text = re.sub(r" ([.,;:!?%)\]}])", r"\1", text)
    text = re.sub(r"([(\[{]) ", r"\1", text)
    text = re.sub(r" ('s|n't|'re|'ve|'ll|'d|'m)\b", r"\1", text)
    text = re.sub(r"``\s?|\s?''", '"', text)
    return re.sub(r'"\s*([^"]*?)\s*"', r'"\1"', text).replace(" - ", "-").replace(" / ", "/").strip()


def wikisplit(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Splitting a sentence in two, and joining the two again."""
    for row in shuffled(records.rows("sft/wikisplit_train"), rng):
        whole, parts = detokenise(row["source"]), " ".join(detokenise(part) for part in row["split"])
        if "''" in whole or len(whole) < 30:
            continue
        if rng.random() < 0.6:
            yield exchange("wikisplit", "split_sentence", ask(rng, SPLIT_INSTRUCTIONS, whole, ("Sentence",)), parts)
        else:
            yield exchange("wikisplit", "join_sentences", ask(rng, JOIN_INSTRUCTIONS, parts, ("Sentences",)), whole)


def onestopenglish(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """News at three reading levels: name the level of a paragraph, and simplify an opening paragraph."""
    levels = ("elementary", "intermediate", "advanced")
    paragraphs: list[tuple[str, str]] = []
    openings: list[tuple[str, str]] = []
    for row in records.rows("sft/onestopenglish_train"):
        found = {}
        for level in levels:
            lines = [line.strip() for line in row.get(level, "").split("\n") if len(line.strip()) > 150]
            found[level] = lines
            paragraphs.extend((clip(line, 900), level) for line in lines[:6])
        if found["advanced"] and found["elementary"]:
            openings.append((clip(found["advanced"][0], 900), clip(found["elementary"][0], 700)))
        if found["intermediate"] and found["elementary"]:
            openings.append((clip(found["intermediate"][0], 900), clip(found["elementary"][0], 700)))
    rows = [
        exchange("onestopenglish", "simplify", ask(rng, SIMPLIFY_INSTRUCTIONS, hard), easy)
        for _ in range(3)
        for hard, easy in openings
        if hard != easy
    ]
    rows += [
        exchange("onestopenglish", "reading_level", ask(rng, LEVEL_INSTRUCTIONS, text), level)
        for text, level in paragraphs
    ]
    yield from shuffled(iter(rows), rng)


def instruction_induction(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Short input/output tasks under the instructions people wrote for them; its sentiment part is left out."""
    annotations = {
        row["task"]: tuple(text.strip() for text in row["annotations"])
        for row in records.rows("sft/instruction_induction_instructions")
    }
    for row in shuffled(records.rows("sft/instruction_induction_train"), rng):
        task, example = row["task"], row["example"]
        if task in LEFT_OUT_TASKS:
            continue
        if "input" in example:
            text, answer = example["input"], example["output"]
        elif task == "cause_and_effect":
            pair = [example["cause"], example["effect"]]
            rng.shuffle(pair)
            text, answer = f"Sentence 1: {pair[0]} Sentence 2: {pair[1]}", example["cause"]
        elif task == "common_concept":
            text, answer = ", ".join(example["items"]), example["all_common_concepts"][0]
        else:
            continue
        if text == answer:
            continue
        if rng.random() < 0.5:
            text = text.replace(" Sentence 2: ", "\nSentence 2: ").replace(" Word: ", "\nWord: ")
        written = annotations.get(task, ())
        instructions = INDUCTION_INSTRUCTIONS[task] if not written or rng.random() < 0.6 else written
        prompt = ask(rng, instructions, text, ("Input", "Word" if " " not in text else "Text"))
        yield exchange("instruction_induction", task, prompt, answer)
