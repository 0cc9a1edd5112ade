"""Sentiment, subjectivity, question types and intents: prompts that list labels, answers that are exactly one label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from kilonova.data.instruct.conversation import Row, clip, exchange, shuffled
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.wording import ask, listing

SENTIMENT_INSTRUCTIONS = (
    "Is the sentiment of this text {labels}?",
    "Decide whether the review is {labels}.",
    "Classify the sentiment as {labels}.",
    "Is this a {labels} opinion?",
    "Tell me if the writer's attitude is {labels}.",
    "Label the sentence as {labels}.",
    "What is the sentiment? Answer {labels}.",
    "Does this express a {labels} feeling?",
    "Judge the tone of the following text: {labels}.",
    "Sentiment analysis: answer with one word, {labels}.",
    "Pick the right sentiment ({labels}).",
)
QUESTION_TYPES = {
    "ABBR": "abbreviation",
    "DESC": "description",
    "ENTY": "entity",
    "HUM": "person",
    "LOC": "location",
    "NUM": "number",
}
FINE_QUESTION_TYPES = {
    "HUM:ind": "individual person", "LOC:other": "other place", "DESC:def": "definition", "NUM:count": "count",
    "DESC:manner": "manner", "DESC:desc": "description", "NUM:date": "date", "ENTY:cremat": "creative work",
    "DESC:reason": "reason", "HUM:gr": "group or organisation", "LOC:country": "country", "LOC:city": "city",
    "ENTY:animal": "animal", "ENTY:food": "food", "ENTY:dismed": "disease or medicine",
    "ENTY:termeq": "equivalent term",
    "NUM:period": "length of time", "ABBR:exp": "meaning of an abbreviation", "NUM:money": "price",
    "LOC:state": "state",
    "ENTY:sport": "sport", "ENTY:event": "event", "HUM:desc": "description of a person", "ENTY:product": "product",
    "ENTY:substance": "substance", "ENTY:color": "colour", "ENTY:techmeth": "technique", "NUM:dist": "distance",
    "ENTY:veh": "vehicle", "ENTY:word": "word", "HUM:title": "title of a person", "NUM:perc": "percentage",
    "LOC:mount": "mountain", "ENTY:body": "part of the body", "ABBR:abb": "abbreviation", "ENTY:lang": "language",
    "ENTY:plant": "plant", "NUM:volsize": "size", "ENTY:symbol": "symbol", "NUM:weight": "weight",
}  # fmt: skip
QUESTION_TYPE_INSTRUCTIONS = (
    "What kind of answer does this question ask for? Choose from: {labels}",
    "Classify the question by the type of its answer. Types: {labels}",
    "Which question type is this?\nOptions: {labels}",
    "Give the category of the question.\nCategories: {labels}",
    "The answer to the question is which of these: {labels}?",
    "Assign one label to the question.\nLabels: {labels}",
    "Question classification. Possible classes: {labels}",
    "Sort this question into one of the following groups: {labels}",
)
INTENT_INSTRUCTIONS = (
    "What does the user want? Choose one intent from: {labels}",
    "Classify the message into one of these intents: {labels}",
    "Pick the intent that fits the message.\nIntents: {labels}",
    "Which of the following labels describes the request? {labels}",
    "Select the right category for this message.\nCategories: {labels}",
    "Route the message to one of these topics: {labels}",
    "Intent detection. Answer with one label only.\nLabels: {labels}",
    "Read the customer's message and name its intent.\nPossible intents: {labels}",
    "Here is a list of intents: {labels}\nWhich one matches the message?",
)
BANK_OPEN_INSTRUCTIONS = (
    "Name the banking intent of this message.",
    "What is this bank customer asking about? Give the intent label.",
    "Which banking topic does the message belong to?",
    "Give the intent of this request to a bank.",
    "Label this bank support message with its intent.",
    "Write the intent label for this message to customer support of a bank.",
)
ASSISTANT_OPEN_INSTRUCTIONS = (
    "Name the intent of this request to a voice assistant.",
    "Which intent does this command to an assistant have?",
    "Give the intent label of this request to a virtual assistant.",
    "What should the voice assistant do here? Answer with the intent label.",
    "Label this assistant command with its intent.",
    "Write the intent of what the user says to the assistant.",
)


def choice_of(rng: Random, labels: Sequence[str]) -> str:
    """Two labels as "a or b", in random order."""
    first, second = rng.sample(list(labels), 2)
    return rng.choice((f"{first} or {second}", f"{first} or {second}", f"{first}/{second}", f'"{first}" or "{second}"'))


def binary_rows(
    source: str,
    task: str,
    rows: list[tuple[str, str]],
    labels: Sequence[str],
    instructions: Sequence[str],
    names: Sequence[str],
    rng: Random,
) -> Iterator[Row]:
    """Rows that ask for one of two labels."""  # fmt: skip
    for text, label in rows:
        capital = rng.random() < 0.15
        shown = [name.capitalize() if capital else name for name in labels]
        filled = [instruction.format(labels=choice_of(rng, shown)) for instruction in instructions]
        answer = label.capitalize() if capital else label
        yield exchange(source, task, ask(rng, filled, text, names), answer)


def sst2(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Sentiment of film phrases; whole sentences twice as often as short phrases."""
    rows = [
        (row["text"].strip(), ("negative", "positive")[int(row["label"])]) for row in records.rows("sft/sst2_train")
    ]
    kept = [(text, label) for text, label in rows if len(text.split()) > 3 or rng.random() < 0.5]
    rng.shuffle(kept)
    names = ("Text", "Review", "Sentence", "Phrase")
    return binary_rows("sst2", "sentiment", kept, ("positive", "negative"), SENTIMENT_INSTRUCTIONS, names, rng)


def sentence_polarity(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Sentiment of one-sentence film opinions."""
    names = {"pos": "positive", "neg": "negative"}
    rows = [(row["text"].strip(), names[row["label"]]) for row in records.rows("sft/sentence_polarity_train")]
    rng.shuffle(rows)
    labels = ("positive", "negative")
    shown = ("Text", "Review", "Sentence", "Opinion")
    return binary_rows("sentence_polarity", "sentiment", rows, labels, SENTIMENT_INSTRUCTIONS, shown, rng)


def movie_reviews(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Sentiment of film reviews, cut to their end, where the verdict usually is."""
    names = {"pos": "positive", "neg": "negative"}
    rows = []
    for row in records.rows("sft/movie_reviews_train"):
        lines = [line.strip() for line in row["text"].split("\n") if line.strip()]
        kept: list[str] = []
        for line in reversed(lines):
            if kept and sum(map(len, kept)) + len(line) > 1100:
                break
            kept.insert(0, line)
        rows.append((clip(" ".join(kept), 1300), names[row["label"]]))
    rng.shuffle(rows)
    labels = ("positive", "negative")
    return binary_rows("movie_reviews", "sentiment", rows, labels, SENTIMENT_INSTRUCTIONS, ("Review", "Text"), rng)


def subjectivity(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Opinion against plain statement."""
    instructions = (
        "Is this sentence {labels}?",
        "Classify the sentence as {labels}.",
        "Decide whether the text is {labels}.",
        "Label the statement: {labels}.",
        "Does the writer give an opinion or a fact? Answer {labels}.",
        "Say if the following is {labels}.",
        "Tell opinions from plain descriptions: answer {labels}.",
    )
    rows = [(row["text"].strip(), row["label"]) for row in records.rows("sft/subjectivity_train")]
    rng.shuffle(rows)
    names = ("Text", "Sentence", "Statement")
    return binary_rows("subjectivity", "subjectivity", rows, ("subjective", "objective"), instructions, names, rng)


def trec(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """The type of answer a question asks for: the six coarse types twice, and a subset of the fine ones."""
    rows = [(row["text"].strip(), row["label"]) for row in records.rows("sft/trec_train")]
    for turn in range(3):
        rng.shuffle(rows)
        for text, label in rows:
            question = text.replace(" ?", "?").replace(" 's", "'s").replace(" ,", ",") if rng.random() < 0.5 else text
            if turn < 2:
                answer = QUESTION_TYPES[label.split(":")[0]]
                labels = list(QUESTION_TYPES.values())
            elif label in FINE_QUESTION_TYPES:
                answer = FINE_QUESTION_TYPES[label]
                others = [name for name in FINE_QUESTION_TYPES.values() if name != answer]
                labels = [answer, *rng.sample(others, rng.randint(3, 9))]
            else:
                continue
            rng.shuffle(labels)
            filled = [text.format(labels=listing(rng, labels)) for text in QUESTION_TYPE_INSTRUCTIONS]
            task = "question_type" if turn < 2 else "question_type_fine"
            yield exchange("trec", task, ask(rng, filled, question, ("Question", "Text")), answer)


def spoken_label(label: str) -> str:
    """A label as words: `card_arrival` becomes `card arrival`."""
    return label.replace("_", " ").replace("?", "").strip().lower()


def intent_rows(
    source: str, rows: list[tuple[str, str]], open_instructions: Sequence[str], rng: Random, full_share: float
) -> Iterator[Row]:
    """Intent prompts with a few candidate labels, with none (the label is learnt), or with the whole list."""
    every_label = sorted({label for _, label in rows})
    for text, label in rows:
        kind = rng.random()
        underscored = rng.random() < 0.25
        if kind < full_share:
            candidates = list(every_label)
        elif kind < full_share + 0.25:
            candidates = []
        else:
            others = [other for other in every_label if other != label]
            candidates = [label, *rng.sample(others, min(len(others), rng.randint(3, 9)))]
        rng.shuffle(candidates)
        answer = label.replace("?", "").lower() if underscored else spoken_label(label)
        shown = [other.replace("?", "").lower() if underscored else spoken_label(other) for other in candidates]
        if not shown:
            prompt = ask(rng, open_instructions, text, ("Message", "Text", "Customer", "User"))
            if underscored:
                prompt += rng.choice(("\nWrite the label with underscores.", " (label with underscores)"))
        else:
            labels = listing(rng, shown) if kind >= full_share else ", ".join(shown)
            filled = [instruction.format(labels=labels) for instruction in INTENT_INSTRUCTIONS]
            prompt = ask(rng, filled, text, ("Message", "Text", "Request", "User"))
        yield exchange(source, "intent", prompt, answer)


def banking77(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Intents of bank customers, twice through with different candidates."""
    rows = shuffled(((row["text"].strip(), row["category"]) for row in records.rows("sft/banking77_train")), rng)
    yield from intent_rows("banking77", rows, BANK_OPEN_INSTRUCTIONS, rng, 0.14)
    rng.shuffle(rows)
    yield from intent_rows("banking77", rows, BANK_OPEN_INSTRUCTIONS, rng, 0.08)


def clinc150(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Intents of requests to an assistant; requests outside every intent are labelled "out of scope"."""
    rows = [
        (row["text"].strip(), "out_of_scope" if row["intent"] == "oos" else row["intent"])
        for row in records.rows("sft/clinc150_train")
    ]
    rng.shuffle(rows)
    yield from intent_rows("clinc150", rows, ASSISTANT_OPEN_INSTRUCTIONS, rng, 0.08)
