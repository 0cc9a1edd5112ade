"""Turns an instruction and its content into one of many layouts, so that no single wording is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from kilonova.data.instruct.words import split_words

_BLOCK_LAYOUTS = (
    "{instruction}\n\n{content}",
    "{instruction}\n{content}",
    "{instruction}\n\n{label}: {content}",
    "{instruction}\n{label}:\n{content}",
    "{content}\n\n{instruction}",
    "{label}: {content}\n\n{instruction}",
    "{label}: {content}\n{instruction}",
)
_INLINE_LAYOUTS = (
    "{bare}: {content}",
    "{bare}: {content}",
    '{bare}: "{content}"',
    "{instruction} {label}: {content}",
)
_IMPERATIVES = frozenset(
    split_words(
        """add answer arrange assign break calculate capitalise change choose classify combine complete connect
        continue convert copy count cross decide delete divide echo explain extract fill find format give
        identify join judge keep label leave list make merge name negate order pick put quote read remove
        repeat replace retell return reverse rewrite rate say select shorten show simplify solve sort spell
        split start subtract suggest sum summarise summarize swap take tell translate turn use write"""
    )
)
_POLITE = ("Please {0}", "Could you {0}", "Can you {0}", "I need you to {0}", "Kindly {0}")


def ask(rng: Random, instructions: Sequence[str], content: str, labels: Sequence[str] = ("Text", "Input")) -> str:
    """A prompt that gives one of `instructions` about `content`, before or after it, with or without a label.

    Instructions end with their end mark; those that are one sentence with an imperative verb are sometimes softened
    ("Please ..."). An instruction that lists things stays apart from the content.
    """
    instruction = rng.choice(instructions).replace(": \n", ":\n")
    single = instruction.count(". ") + instruction.count("? ") == 0 and "\n" not in instruction
    imperative = instruction.split(" ")[0].lower() in _IMPERATIVES and not instruction.endswith("?")
    if single and imperative and rng.random() < 0.12:
        wording = rng.choice(_POLITE)
        lowered = instruction[0].lower() + instruction[1:]
        instruction = wording.format(lowered)
        if wording.startswith(("Could", "Can")):
            instruction = instruction.rstrip(".") + "?"
    elif rng.random() < 0.08:
        instruction = instruction[0].lower() + instruction[1:]
    if rng.random() < 0.05:
        instruction = instruction.rstrip(".")
    short = "\n" not in content and len(content) < 160
    inline = short and single and ":" not in instruction and not instruction.endswith("?") and rng.random() < 0.45
    layout = rng.choice(_INLINE_LAYOUTS if inline else _BLOCK_LAYOUTS)
    if '"' in content:
        layout = layout.replace('"', "")
    return layout.format(
        instruction=instruction, bare=instruction.rstrip(".:"), content=content, label=rng.choice(labels)
    )


def listing(rng: Random, items: Sequence[str]) -> str:
    """Items as a comma list, a slash list, or on lines of their own below a line break."""
    style = rng.random()
    if style < 0.5 or any("," in item for item in items):
        return (", " if not any("," in item for item in items) else "; ").join(items)
    if style < 0.6:
        return " / ".join(items)
    return "\n" + "\n".join((f"- {item}" if style < 0.85 else item) for item in items)
