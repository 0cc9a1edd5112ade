import random

import pytest

from kilonova.engine.stops import StopMatcher


def feed(stops, pieces):
    matcher = StopMatcher(stops)
    text = ""
    for piece in pieces:
        emitted, stop = matcher.push(piece)
        text += emitted
        if stop is not None:
            return text, stop
    return text + matcher.flush(), None


def test_match_across_pieces():
    assert feed(["END"], ["some E", "N", "D more"]) == ("some ", "END")


def test_only_what_could_still_match_is_held_back():
    matcher = StopMatcher(["\n\nUser:", "###"])
    assert matcher.push("hello\n") == ("hello", None)
    assert matcher.push("\n") == ("", None)
    assert matcher.push("Use") == ("", None)
    assert matcher.push("s #") == ("\n\nUses ", None)
    assert matcher.push("#") == ("", None)
    assert matcher.flush() == "##"


def test_the_match_that_ends_first_wins_and_then_the_longest():
    assert feed(["abcd", "bc"], ["xabcd"]) == ("xa", "bc")
    assert feed(["b", "ab"], ["xab"]) == ("x", "ab")


def test_without_stops_text_passes():
    assert StopMatcher(()).push("text") == ("text", None)


def test_many_stops():
    stops = [f"stop number {number}." for number in range(2500)]
    assert feed(stops, ["and", "then", "stop", "number", "2499.", "not"]) == feed(stops, ["andthenstopnumber2499.not"])
    assert feed(stops, list("and then stop number 2499. not")) == ("and then ", "stop number 2499.")


@pytest.mark.parametrize("seed", range(20))
def test_the_cut_into_pieces_does_not_matter(seed):
    """Against the definition: scan for the first end of any stop sequence."""
    generator = random.Random(seed)
    stops = ["".join(generator.choices("ab", k=generator.randint(2, 6))) for _ in range(3)]
    text = "".join(generator.choices("abc", k=60))
    ends = [(end, -len(stop), stop) for stop in stops for end in range(1, len(text) + 1) if text[:end].endswith(stop)]
    if ends:
        end, length, stop = min(ends)
        expected = (text[: end + length], stop)
    else:
        expected = (text, None)
    for _ in range(20):
        pieces, rest = [], text
        while rest:
            cut = generator.randint(1, 5)
            pieces.append(rest[:cut])
            rest = rest[cut:]
        assert feed(stops, pieces) == expected
