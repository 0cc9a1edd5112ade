"""Random JSON schemas, of values that are short, in the keywords that grammars enforce."""

from __future__ import annotations

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "city", "ключ", 'quo"te', "back\\slash", "new\nline"])
LEAVES = st.one_of(
    st.builds(
        lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
        st.integers(-99, 99),
        st.integers(0, 500),
    ),
    st.builds(
        lambda low, span: {"type": "string", "minLength": low, "maxLength": low + span},
        st.integers(0, 3),
        st.integers(0, 6),
    ),
    st.sampled_from(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"type": "string", "pattern": "^[a-f]{2,4}(-[0-9]+){0,2}$", "maxLength": 12},
        ]
    ),
    st.sampled_from([{"type": "string", "format": name} for name in ("date", "date-time", "ipv4", "uuid")]),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.one_of(st.integers(-5, 5), st.text(max_size=5), st.none()), min_size=1, max_size=4, unique_by=repr),
    ),
    st.builds(
        lambda value: {"const": value},
        st.one_of(st.text(max_size=6), st.dictionaries(NAMES, st.integers(0, 9), max_size=2)),
    ),
    st.sampled_from([{"type": ["null", "boolean"]}, {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 70}]),
)


def objects(children):
    def build(properties, is_open, data):
        required = sorted(data.sample(list(properties), data.randint(0, len(properties))))
        schema = {"type": "object", "properties": properties, "required": required}
        return schema | (
            {"additionalProperties": {"type": "boolean"}, "maxProperties": 4}
            if is_open and required == sorted(properties)
            else {}
        )

    return st.builds(build, st.dictionaries(NAMES, children, min_size=1, max_size=3), st.booleans(), st.randoms())


def arrays(children):
    def build(items, low, span):
        return {"type": "array", "items": items, "minItems": low, "maxItems": low + span}

    return st.builds(build, children, st.integers(0, 2), st.integers(0, 2))


def composed(children):
    """Schemas with definitions, alternatives, arrays and objects in them."""
    either = st.builds(lambda branches: {"anyOf": branches}, st.lists(children, min_size=1, max_size=3))
    return st.one_of(objects(children), arrays(children), either)


SCHEMAS = st.recursive(LEAVES, composed, max_leaves=6)
