"""What a key can be limited to."""

from __future__ import annotations

from collections.abc import Iterable

from kilonova.core.errors import InvalidRequest, nearest

# The APIs' own names, as `Call.operation` holds them, by the name that stands for all of a group.
GROUPS: dict[str, tuple[str, ...]] = {
    "bedrock": (
        "Converse",
        "ConverseStream",
        "InvokeModel",
        "InvokeModelWithResponseStream",
        "CountTokens",
        "ListFoundationModels",
        "GetFoundationModel",
        "GetFoundationModelAvailability",
        "ListInferenceProfiles",
        "GetInferenceProfile",
    ),
    "openai": (
        "chat.completions",
        "completions",
        "responses",
        "embeddings",
        "images.generations",
        "images.edits",
        "images.variations",
        "models",
        "tokenize",
        "detokenize",
        "tokenizer_info",
    ),
    "usage": ("usage",),
    "metrics": ("metrics",),
}
# Not in a group: everyone's usage, and others' keys, are for whoever is given them by name.
ALL_USAGE = "usage.all"
MANAGE_KEYS = "keys.manage"
OPERATIONS = (*(operation for group in GROUPS.values() for operation in group), ALL_USAGE, MANAGE_KEYS)


def expand(names: Iterable[str]) -> frozenset[str]:
    """The operations of names, of which some may be groups'. Raises InvalidRequest for an unknown one."""
    found: set[str] = set()
    for name in names:
        if name not in OPERATIONS and name not in GROUPS:
            raise InvalidRequest(f"no operation {name!r}: {nearest(name, (*GROUPS, *OPERATIONS))}", field="operations")
        found.update(GROUPS.get(name, (name,)))
    return frozenset(found)


def summarise(operations: frozenset[str]) -> list[str]:
    """The operations, with the group's name in place of each whole group."""
    whole = {name: set(group) for name, group in GROUPS.items() if operations.issuperset(group)}
    return [*whole, *sorted(operations.difference(*whole.values()))]
