import pytest

from kilonova.core.errors import DataError
from kilonova.data.verifiers import make_verifier


@pytest.mark.parametrize(
    ("specification", "rewards"),
    [
        ({"name": "exact", "answer": "red fox"}, {"red fox": 1, "  red\n fox ": 1, "Red fox": 0, "red": 0}),
        ({"name": "exact", "answer": "Yes", "ignore_case": True}, {"YES": 1, "no": 0}),
        ({"name": "exact", "answer": "abcd", "partial": True}, {"abcd": 1, "abXX": 0.5, "abcdabcd": 0.5, "": 0}),
        ({"name": "number", "value": 12}, {"12": 1, "It is 12.": 1, "12 or 13": 0, "none": 0, "-12": 0, "12.0": 1}),
        ({"name": "number", "value": -1234.5, "tolerance": 0.5}, {"-1,234.5": 1, "about -1,234": 1, "-1233": 0}),
        ({"name": "regex", "pattern": "[a-z]+!"}, {"wow!": 1, " wow! ": 1, "wow": 0, "oh wow!": 0}),
        ({"name": "word_count", "most": 3}, {"one": 1, "one two three": 1, "": 0, "a b c d": 0}),
        ({"name": "word_count", "least": 2, "most": 2}, {"one": 0, "one two": 1}),
        (
            {"name": "sorted_list", "items": ["9", "10", "2"]},
            {"2, 9, 10": 1, "2\n9\n10": 1, "10, 2, 9": 0.5, "2, 9": 0, "2, 9, 10, 11": 0},
        ),
        ({"name": "sorted_list", "items": ["b", "a"], "order": "descending"}, {"b, a": 1, "a, b": 0.5}),
        (
            {"name": "words", "contains": ["cat", "dog"], "excludes": ["fish"]},
            {"Cat and dog": 1, "cat": 2 / 3, "catdog fish": 0, "dogs, cat, fish": 1 / 3},
        ),
        (
            {"name": "json_schema", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
            {'{"a": 1}': 1, '{"a": "1"}': 0, "{a: 1}": 0, "[1]": 0},
        ),
        (
            {"name": "mean", "verifiers": [{"name": "exact", "answer": "7"}, {"name": "number", "value": 7}]},
            {"7": 1, "It is 7": 0.5, "8": 0},
        ),
    ],
    ids=lambda value: value.get("name", ""),
)
def test_rewards(specification, rewards):
    verifier = make_verifier(specification)
    assert {text: verifier(text) for text in rewards} == pytest.approx(rewards)


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ({"name": "nubmer", "value": 1}, "did you mean 'number'"),
        ({"value": 1}, "a mapping with a name"),
        ("number", "a mapping with a name"),
        ({"name": "number", "valeu": 1}, "did you mean 'value'"),
        ({"name": "number", "value": "one"}, "number"),
        ({"name": "number"}, "value"),
        ({"name": "regex", "pattern": "("}, "not a regular expression"),
        ({"name": "json_schema", "schema": {"type": "objekt"}}, "objekt"),
        ({"name": "words"}, "contains"),
        ({"name": "sorted_list", "items": ["a"], "order": "up"}, "order"),
        ({"name": "mean", "verifiers": [{"name": "exactly"}]}, "did you mean 'exact'"),
    ],
)
def test_bad_specifications_say_what_is_wrong(specification, message):
    with pytest.raises(DataError, match=message):
        make_verifier(specification)
