"""Tasks made from running text: titles, summaries, definitions, cloze, order and continuation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from kilonova.data.instruct.conversation import Row, clip, exchange, sentences, shuffled
from kilonova.data.instruct.knowledge import passage_question
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.wording import ask
from kilonova.data.instruct.words import split_words

TITLE_INSTRUCTIONS = (
    "Give this text a title.",
    "What would be a good title for this text?",
    "Write a short title for the following text.",
    "Find a heading for this passage.",
    "What is the topic of this text? Answer with a title.",
    "Suggest a title.",
    "Name the subject of the passage in a few words.",
)
SUMMARY_INSTRUCTIONS = (
    "Summarise the text in one sentence.",
    "Summarize this.",
    "What is the main point of this text?",
    "Give a one-sentence summary.",
    "Sum up the passage briefly.",
    "Tell me in one sentence what this is about.",
    "Shorten this text to its main idea.",
    "TL;DR of the following, please.",
)
STORY_SUMMARY_INSTRUCTIONS = (
    "Summarise the story in two sentences.",
    "Summarize this story briefly.",
    "What happens in this story? Tell it in two sentences.",
    "Give a short summary of the story.",
    "Tell me shortly how the story begins and ends.",
    "Retell the story in two sentences.",
)
CLOZE_INSTRUCTIONS = (
    "Fill in the blank with one of these words: {words}.",
    "Which word fits the blank: {words}?",
    "Choose the missing word ({words}).",
    "Complete the sentence. Words to choose from: {words}.",
    "Pick the word that belongs in the gap: {words}.",
    "One word is missing. Is it {words}?",
)
CONTINUE_INSTRUCTIONS = (
    "Continue the text with one more sentence.",
    "Write the next sentence.",
    "What comes next? Write one sentence.",
    "Carry on with the story.",
    "Add a sentence to this text.",
    "Continue this.",
)
PICK_INSTRUCTIONS = {
    "first": ("Write only the first sentence of the text.", "What is the first sentence?", "Copy the first sentence.",
              "Give me the opening sentence of this text.", "Repeat the first sentence.", "Quote the first sentence."),
    "last": ("Write only the last sentence of the text.", "What is the last sentence?", "Copy the last sentence.",
             "Give me the closing sentence of this text.", "Repeat the final sentence.", "Quote the last sentence."),
    "second": ("Write only the second sentence of the text.", "What is the second sentence?",
               "Copy the second sentence.", "Give me sentence number two.", "Repeat the second sentence.",
               "Quote the second sentence."),
}  # fmt: skip
WHO_INSTRUCTIONS = (
    "Who is this story about?",
    "Which names appear in the text?",
    "List the people named in the text.",
    "Name the characters in this text.",
    "Extract the names of the characters.",
    "Who is mentioned here? List the names.",
)
AUTHOR_TEMPLATES = (
    "Who wrote {title}?", "Who is the author of {title}?", "Name the author of the book {title}.",
    "Which author wrote {title}?", "{title} was written by whom?", "Tell me who wrote {title}.",
)  # fmt: skip
YEAR_TEMPLATES = (
    "When was {title} published?", "In which year did {title} by {author} appear?", "What year is {title} from?",
    "Give the year of publication of {title}.", "When did {author} publish {title}?",
    "How old a book is {title}? Give its year.",
)  # fmt: skip
_DEFINITION = re.compile(
    r"^(?:(?:The|A|An) )?(?P<term>[A-Z]?[a-z][a-z-]+(?: [a-z-]+){0,2}) (?P<verb>is|are) "
    r"(?P<rest>(?:a|an|the) (?:\w+[ ,-]+){4,40}\w+)\.$"
)
_NOT_TERMS = frozenset(
    split_words(
        """this that these those it they there which what one here such he she we another each but and or so
        yet if as because after although while since most many more some all both who when where why how
        perhaps also only then not no every in on at for to from with by of its their our your his her you
        whether either neither first second third last next"""
    )
)
_COMMON = frozenset(
    split_words(
        """the and that with from this have were their there which about would could should these those into
        than then them they been other some such what when where while after before because also more most
        many much only over very will your said upon being between both does each first made make"""
    )
)
_SUMMARY_HEADINGS = ("Key Concepts and Summary", "Summary", "Section Summary", "Chapter Review")


def contentsplit_words(text: str) -> set[str]:
    """The longer words of a text, lowered, without the commonest ones."""
    return {word for word in re.findall(r"[a-z]{4,}", text.lower()) if word not in _COMMON}


def plain_paragraphs(text: str) -> list[str]:
    """Paragraphs of prose: no headings, lists, tables, code or formulas."""
    found = []
    for block in text.split("\n\n"):
        block = " ".join(block.split())
        if len(block) > 200 and not re.match(r"[#\-*|>`\d\[]", block) and not re.search(r"[\\$^{}=|]|http", block):
            found.append(block)
    return found


def cloze(source: str, paragraph: str, pool: list[str], rng: Random) -> Row | None:
    """One sentence with a word blanked, and four words to choose from."""
    candidates = [sentence for sentence in sentences(paragraph) if 50 < len(sentence) < 260]
    if not candidates:
        return None
    sentence = rng.choice(candidates)
    words = [word for word in re.findall(r"\b[a-z]{5,}\b", sentence) if word not in _COMMON]
    if not words:
        return None
    answer = rng.choice(words)
    others = [word for word in pool if word not in sentence]
    if len(others) < 3:
        return None
    options = [answer, *rng.sample(others, 3)]
    rng.shuffle(options)
    blanked = re.sub(rf"\b{answer}\b", "___", sentence)
    listed = ", ".join(options[:-1]) + " or " + options[-1]
    instructions = [text.format(words=listed) for text in CLOZE_INSTRUCTIONS]
    return exchange(source, "cloze", ask(rng, instructions, blanked, ("Sentence",)), answer)


def pick_sentence(source: str, paragraph: str, rng: Random) -> Row | None:
    """Asks for the first, second or last sentence of a short passage."""
    found = sentences(clip(paragraph, 700))
    if len(found) < 3 or any(len(sentence) < 12 for sentence in found):
        return None
    which = rng.choice(("first", "last", "second"))
    answer = found[{"first": 0, "last": -1, "second": 1}[which]]
    return exchange(source, "pick_sentence", ask(rng, PICK_INSTRUCTIONS[which], " ".join(found)), answer)


def continuation(source: str, paragraph: str, rng: Random) -> Row | None:
    """Asks for the sentence that follows."""
    found = sentences(clip(paragraph, 900))
    if len(found) < 3:
        return None
    cut = rng.randint(1, len(found) - 1)
    instructions = CONTINUE_INSTRUCTIONS
    return exchange(source, "continue", ask(rng, instructions, " ".join(found[:cut])), found[cut])


def definition(source: str, paragraph: str, rng: Random) -> Row | None:
    """A "what is" question whose answer is a defining sentence of the passage."""
    for sentence in sentences(paragraph):
        match = _DEFINITION.match(sentence)
        if match is None or match["term"].split()[0].lower() in _NOT_TERMS or len(sentence) > 260:
            continue
        term = match["term"][0].lower() + match["term"][1:]
        question = rng.choice((
            f"What {match['verb']} {term}?", f"Define {term}.", f"What does {term} mean?",
            f"How would you define {term}?", f"Give a definition of {term}.", f"Explain what {term} {match['verb']}.",
        ))  # fmt: skip
        if rng.random() < 0.35:
            return exchange(source, "definition", question, sentence)
        start = max(0, paragraph.find(sentence) - rng.randint(0, 300))
        passage = clip(paragraph[start:].partition(" ")[2] if start else paragraph, 900)
        if sentence in passage:
            return exchange(source, "passage_question", passage_question(rng, passage, question), sentence)
    return None


def openstax(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Textbook tasks: titles and headings, summaries, definitions, cloze, sentence picking."""
    for row in shuffled(records.rows("text/openstax_en_train"), rng):
        sections = re.split(r"\n+## ", "\n" + row["text"])
        body = [block for section in sections[:6] for block in plain_paragraphs(section)]
        if len(body) < 2:
            continue
        pool = sorted({word for word in contentsplit_words(" ".join(body)) if len(word) > 4})
        made: list[Row | None] = []
        opening = clip(" ".join(body[:3]), rng.choice((600, 900, 1500)))
        made.append(exchange("openstax", "title", ask(rng, TITLE_INSTRUCTIONS, opening), row["title"]))
        for section in sections[1:]:
            heading, _, text = section.partition("\n")
            paragraphs = plain_paragraphs(text)
            if heading.strip() in _SUMMARY_HEADINGS:
                points = sentences(" ".join(text.split()))[:1]
                passage = clip(" ".join(body[:4]), 2000)
                if points and 40 < len(points[0]) < 320:
                    words = contentsplit_words(points[0])
                    if len(words & contentsplit_words(passage)) >= 0.6 * len(words):
                        made.append(
                            exchange(
                                "openstax", "summary", ask(rng, SUMMARY_INSTRUCTIONS, passage), points[0].lstrip("- ")
                            )
                        )
            elif paragraphs and 4 < len(heading) < 70 and rng.random() < 0.3:
                passage = clip(" ".join(paragraphs[:2]), 900)
                made.append(exchange("openstax", "title", ask(rng, TITLE_INSTRUCTIONS, passage), heading.strip()))
        for paragraph in rng.sample(body, min(len(body), 6)):
            made.append(definition("openstax", paragraph, rng))
            roll = rng.random()
            if roll < 0.3:
                made.append(cloze("openstax", paragraph, pool, rng))
            elif roll < 0.5:
                made.append(pick_sentence("openstax", paragraph, rng))
            elif roll < 0.65:
                first = sentences(paragraph)[0]
                if 60 < len(first) < 220 and len(paragraph) > 500 and first.endswith("."):
                    made.append(
                        exchange("openstax", "summary", ask(rng, SUMMARY_INSTRUCTIONS, clip(paragraph, 1200)), first)
                    )
        yield from (found for found in made if found)


def books(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Tasks from classic books: authors and years, continuation, cloze, sentence picking."""
    for name in ("text/books_en_train_2", "text/books_en_train"):
        for row in records.rows(name):
            title, author, year = row["title"], row["author"], row["year"]
            for _ in range(3):
                quoted = rng.choice((title, f'"{title}"'))
                question = rng.choice(AUTHOR_TEMPLATES).format(title=quoted)
                answer = rng.choice((author, f"{title} was written by {author}.", author))
                yield exchange("classic_books", "author", question, answer)
            question = rng.choice(YEAR_TEMPLATES).format(title=title, author=author)
            yield exchange("classic_books", "year", question, str(year))
            paragraphs = [block for block in plain_paragraphs(row["text"]) if len(block) > 250]
            if len(paragraphs) < 20:
                continue
            chosen = rng.sample(paragraphs, 20)
            pool = sorted({word for word in contentsplit_words(" ".join(chosen)) if len(word) > 4})
            for paragraph in chosen:
                roll = rng.random()
                if roll < 0.45:
                    found = continuation("classic_books", paragraph, rng)
                elif roll < 0.75:
                    found = cloze("classic_books", paragraph, pool, rng)
                else:
                    found = pick_sentence("classic_books", paragraph, rng)
                if found:
                    yield found


def stories(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """English children's stories: titles, summaries by first and last sentence, names, continuation, telling."""
    for row in shuffled(records.rows("text/children_stories_multilingual"), rng):
        if row["lang"] != "en":
            continue
        pages = [" ".join(page.split()) for page in row["pages"]]
        text = " ".join(pages)
        whole = clip(text, 2200)
        made: list[Row | None] = [
            exchange(
                "children_stories", "title", ask(rng, TITLE_INSTRUCTIONS, clip(text, 1200), ("Story",)), row["title"]
            )
        ]
        found = sentences(text)
        if whole == text and len(found) > 5 and len(found[0]) + len(found[-1]) < 300:
            prompt = ask(rng, STORY_SUMMARY_INSTRUCTIONS, text, ("Story", "Text"))
            made.append(exchange("children_stories", "summary", prompt, f"{found[0]} {found[-1]}"))
        names = story_names(whole)
        if names:
            prompt = ask(rng, WHO_INSTRUCTIONS, clip(text, 1000), ("Story", "Text"))
            shown = [name for name in names if name in clip(text, 1000)]
            if shown:
                made.append(exchange("children_stories", "names", prompt, ", ".join(shown)))
        request = rng.choice((
            "Tell me a story about {title}.", 'Write a children\'s story called "{title}".',
            "Tell me the story {title}.",
            "Write a short story with the title {title}.", "Can you tell a story named {title}?",
            "Story time: {title}!",
        )).format(title=row["title"])  # fmt: skip
        made.append(exchange("children_stories", "story", request, clip(text, 900)))
        made.extend(
            continuation("children_stories", page, rng) or pick_sentence("children_stories", page, rng)
            for page in rng.sample(pages, min(len(pages), 3))
        )
        yield from (item for item in made if item)


def story_names(text: str) -> list[str]:
    """Capitalised words that also occur inside sentences at least twice, in order of appearance."""
    inside = re.findall(r"(?<=[a-z,] )([A-Z][a-z]{2,})\b", text)
    names = [name for name in dict.fromkeys(inside) if inside.count(name) >= 2]
    return names[:5]
