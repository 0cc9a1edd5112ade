"""Inference profiles: the names under which a model is asked for across regions. Here all mean the same model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from kilonova.core.errors import InvalidRequest

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry

ProfileType = Literal["SYSTEM_DEFINED", "APPLICATION"]

_ACCOUNT = "000000000000"
_IDENTIFIER = re.compile(
    r"(?:arn:aws(?:-[a-z-]+)?:bedrock:[a-z0-9-]*:[0-9]*:(?P<kind>inference-profile|application-inference-profile)/)?"
    r"(?P<id>[a-zA-Z0-9-:.]+)"
)
_SYSTEM_DEFINED = re.compile(r"(?:us|eu|apac|global)\..+")


def model_arn(entry: ModelEntry, region: str) -> str:
    """The model's ARN as a foundation model."""
    return f"arn:aws:bedrock:{region}::foundation-model/{entry.bedrock_id}"


def of_entry(entry: ModelEntry, region: str) -> list[dict[str, Any]]:
    """The profiles of a model that a caller in `region` is offered: that of its part of the world, and the global."""
    prefix = {"us": "us", "eu": "eu", "ap": "apac"}.get(region.split("-")[0])
    prefixes = [prefix, "global"] if prefix else ["global"]
    return [describe(entry, region, f"{each}.{entry.bedrock_id}", "SYSTEM_DEFINED") for each in prefixes]


def describe(entry: ModelEntry, region: str, profile_id: str, kind: ProfileType) -> dict[str, Any]:
    """A profile as the service describes it."""
    resource = "inference-profile" if kind == "SYSTEM_DEFINED" else "application-inference-profile"
    geography = f"{profile_id.split('.')[0].upper()} " if kind == "SYSTEM_DEFINED" else ""
    return {
        "inferenceProfileName": geography + entry.display_name,
        "inferenceProfileArn": f"arn:aws:bedrock:{region}:{_ACCOUNT}:{resource}/{profile_id}",
        "inferenceProfileId": profile_id,
        "models": [{"modelArn": model_arn(entry, region)}],
        "status": "ACTIVE",
        "type": kind,
    }


def parse_identifier(identifier: str) -> tuple[str, ProfileType] | None:
    """The id and the type of a profile named by id or ARN; None for what names none."""
    match = _IDENTIFIER.fullmatch(identifier)
    if match is None:
        return None
    if match["kind"] == "application-inference-profile":
        return match["id"], "APPLICATION"
    return (match["id"], "SYSTEM_DEFINED") if _SYSTEM_DEFINED.fullmatch(match["id"]) else None


def paginate(
    items: Sequence[dict[str, Any]], size: int | None, token: str | None
) -> tuple[Sequence[dict[str, Any]], str | None]:
    """A page of at most `size` items, and the token of the next one; raises InvalidRequest for a token of no page."""
    start = 0 if token is None else int(token) if re.fullmatch("[0-9]{1,9}", token) else -1
    if not 0 <= start <= len(items):
        raise InvalidRequest("The nextToken is not one of this list. Start without it.", field="nextToken")
    end = len(items) if size is None else min(start + size, len(items))
    return items[start:end], str(end) if end < len(items) else None
