"""Which questions about a scene a caption answers: a picture may be judged by these alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from kilonova.data.world.captions import Caption, Claim
from kilonova.data.world.questions import Question
from kilonova.data.world.scene import Scene
from kilonova.evals.canvas.nouns import read_noun

_SMALLER = ("small", "medium", "large")


def implied(scene: Scene, caption: Caption, asked: Sequence[Question]) -> list[Question]:
    """The questions whose answers follow from the caption, what it does not mention being absent."""
    said: dict[int, dict[str, Claim]] = defaultdict(dict)
    for claim in caption.claims:
        for subject in claim.subjects:
            said[subject][claim.aspect] = claim
    return [question for question in asked if _follows(question, scene, caption, said)]


def _follows(question: Question, scene: Scene, caption: Caption, said: dict[int, dict[str, Claim]]) -> bool:
    aspects = {claim.aspect for claim in caption.claims}
    match question.kind:
        case "background":
            return "background" in aspects
        case "text":
            return "letters" not in question.text or _tells_letters(scene, caption)
        case "relation":
            pair = set(question.subjects)
            claims = [claim for claim in caption.claims if claim.aspect == "relation"]
            return any({*claim.subjects, claim.other} == pair for claim in claims)
        case "position":
            return all("place" in said[subject] for subject in question.subjects)
        case "texture":
            return all("texture" in said[subject] for subject in question.subjects)
        case "size":
            return _tells_sizes(question, scene, said)
        case "color" if not question.subjects:
            kind = read_noun(question.text.removeprefix("Is there ").removesuffix("?")).kind
            same = [index for index, thing in enumerate(scene.objects) if thing.kind == kind]
            return all("colour" in said[index] for index in same)
        case "color":
            return all("colour" in said[subject] for subject in question.subjects)
    if question.text.startswith("What"):
        noun = read_noun(question.text.partition(" is the ")[2].removesuffix("?"))
        needed = [aspect for aspect in ("colour", "texture") if getattr(noun, aspect)]
        return all(aspect in said[subject] for aspect in needed for subject in question.subjects)
    return True


def _tells_letters(scene: Scene, caption: Caption) -> bool:
    if scene.text is None:
        return False
    colour = scene.text.colour
    return f'" in {colour}' in caption.text or f"{colour} letters" in caption.text.lower()


def _tells_sizes(question: Question, scene: Scene, said: dict[int, dict[str, Claim]]) -> bool:
    """Whether two sizes are claimed and differ, the way the question goes."""
    i, j = question.subjects
    claimed = [said[index].get("size") for index in (i, j)]
    if claimed[0] is None or claimed[1] is None:
        return False
    return _SMALLER.index(scene.objects[i].size) != _SMALLER.index(scene.objects[j].size)
