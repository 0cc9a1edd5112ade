"""Instructions about form that a program can check: separators, numbers of items, case."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from random import Random

from kilonova.data.instruct.words import CATEGORIES, NUMBER_WORDS, plural_of
from kilonova.data.preference_pairs.pair import Pair, make_pair

Layout = Callable[[Sequence[str]], str]

LAYOUTS: dict[str, tuple[str, Layout]] = {
    "commas": ("separated by commas", ", ".join),
    "semicolons": ("separated by semicolons", "; ".join),
    "slashes": ("separated by slashes", "/".join),
    "lines": ("one on each line, without any marks", "\n".join),
    "dashes": ("as a list with dashes", lambda items: "\n".join(f"- {item}" for item in items)),
    "numbers": (
        "as a numbered list",
        lambda items: "\n".join(f"{number}. {item}" for number, item in enumerate(items, start=1)),
    ),
    "json": ("as a JSON array of strings", lambda items: json.dumps(list(items), ensure_ascii=False)),
    "brackets": ("each in square brackets", lambda items: " ".join(f"[{item}]" for item in items)),
}
CASES: dict[str, tuple[str, Callable[[str], str]]] = {
    "upper": ("in capital letters", str.upper),
    "lower": ("in small letters", str.lower),
    "title": ("with a capital first letter", str.title),
}
_UNCOUNTABLE = {"clothing": "pieces of clothing", "furniture": "pieces of furniture"}
_TEMPLATES = (
    "Name {number} {things}, {layout}.",
    "List {number} {things} {layout}.",
    "Give me {number} {things}, {layout}.",
    "I need {number} {things} {layout}.",
    "Write down {number} {things} {layout}, nothing else.",
    "Please give {number} {things}. I want them {layout}.",
)
_ITEMS_TEMPLATES = (
    "Write these {layout}: {items}",
    "Here are some {things}: {items}. Write them {layout}.",
    "{items}\n\nGive me this list {layout}.",
    "Rewrite the list {layout}.\n{items}",
)


def wrong_formats(rng: Random) -> Iterator[Pair]:
    """Lists in the form asked for against lists in another form, of another number or in another case; without end."""
    while True:
        category = rng.choice(sorted(CATEGORIES))
        count = rng.randint(2, 6)
        items = rng.sample(CATEGORIES[category], count + 1)
        spare = items.pop()
        asked, other = rng.sample(sorted(LAYOUTS), 2)
        wording, layout = LAYOUTS[asked]
        things = _UNCOUNTABLE.get(category) or plural_of(category)
        if rng.random() < 0.5:
            prompt = rng.choice(_ITEMS_TEMPLATES).format(layout=wording, things=things, items=" ".join(items))
        else:
            number = rng.choice((str(count), NUMBER_WORDS[count]))
            prompt = rng.choice(_TEMPLATES).format(number=number, things=things, layout=wording)
        change: Callable[[str], str] = str
        other_case: Callable[[str], str] | None = None
        if rng.random() < 0.25:
            case, wrong_case = rng.sample(sorted(CASES), 2)
            prompt += f" Write them {CASES[case][0]}."
            change, other_case = CASES[case][1], CASES[wrong_case][1]
        chosen = layout([change(item) for item in items])
        fault = rng.random()
        if other_case is not None and fault < 0.6:
            rejected = layout([other_case(item) for item in items])
        elif fault < 0.4:
            rejected = LAYOUTS[other][1]([change(item) for item in items])
        elif fault < 0.7:
            rejected = layout([change(item) for item in (*items, spare)])
        else:
            lost = rng.randrange(len(items))
            rejected = layout([change(item) for item in (*items[:lost], *items[lost + 1 :])])
        if rejected != chosen and rejected.strip():
            yield make_pair("wrong_format", "this package", [{"role": "user", "content": prompt}], chosen, rejected)
