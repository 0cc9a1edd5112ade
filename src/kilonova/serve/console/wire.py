"""New keys and models as the console's API reads and writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from kilonova.serve.call import BudgetPeriod, KeyLimits
from kilonova.serve.keys.description import parse_budget
from kilonova.serve.keys.operations import expand

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry
    from kilonova.serve.ledger.prices import Price

Limit = Annotated[int, Meta(ge=1, le=2**62)]


class NewKey(Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /kilonova/keys. What is left out is not limited; `budget_usd` is a decimal in a string."""

    name: str
    models: list[str] | None = None
    operations: list[str] | None = None
    expires_in_days: Annotated[int, Meta(ge=1, le=3650)] | None = None
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    tokens_per_day: Limit | None = None
    budget_usd: str | None = None
    budget_period: BudgetPeriod = "month"

    def checked_operations(self) -> frozenset[str] | None:
        """The operations, those of groups one by one; None for all that need not be given by name."""
        return None if self.operations is None else expand(self.operations)

    def limits(self) -> KeyLimits:
        """The limits; raises InvalidRequest for a budget that is no amount of dollars."""
        return KeyLimits(
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            tokens_per_day=self.tokens_per_day,
            budget_usd=None if self.budget_usd is None else parse_budget(self.budget_usd),
            budget_period=self.budget_period,
        )

    def expiry(self, now: datetime) -> datetime | None:
        """When it stops working."""
        return None if self.expires_in_days is None else now.astimezone(UTC) + timedelta(days=self.expires_in_days)


def describe_model(entry: ModelEntry, price_entry: str, price: Price) -> dict[str, Any]:
    """A model with its price in dollars, of a million tokens and of a picture; None where the price book has none."""
    cache_read = price.input if price.cache_read is None else price.cache_read
    return {
        "name": entry.name,
        "display_name": entry.display_name,
        "bedrock_id": entry.bedrock_id,
        "provider": entry.provider,
        "description": entry.description,
        "base": entry.base or None,
        "input_modalities": entry.input_modalities,
        "output_modalities": entry.output_modalities,
        "context_length": entry.context_length,
        "max_output_tokens": entry.max_output_tokens,
        "price": {
            "entry": price_entry,
            "input": float(price.input),
            "output": float(price.output),
            "cache_read": float(cache_read),
            "image": float(price.image),
            "image_large": float(price.image_large),
            "image_premium": float(price.image_premium),
            "image_premium_large": float(price.image_premium_large),
        }
        if price_entry
        else None,
    }
