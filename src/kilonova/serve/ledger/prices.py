"""What calls cost: prices by model, and exact arithmetic on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Literal

from kilonova.core.errors import ConfigError
from kilonova.core.types import ServiceTier, Usage

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry

# A dollar in the unit of prices. A row's price is exact in it, and 2**63 of them are nine million dollars.
PICODOLLARS = 10**12

# The day of the public price list that `NOVA` was copied from.
NOVA_VERSION = "nova-us-2026-07-09"
_PICODOLLARS_PER_TOKEN = PICODOLLARS // 10**6  # where a million tokens cost a dollar


@dataclass(frozen=True, kw_only=True)
class Price:
    """A model's prices in US dollars; ConfigError for one out of range."""

    input: Decimal = field(default=Decimal(0), metadata={"doc": "A million tokens of prompt."})
    output: Decimal = field(default=Decimal(0), metadata={"doc": "A million tokens of answer."})
    cache_read: Decimal | None = field(
        default=None, metadata={"doc": "A million prompt tokens found in the cache; else as input."}
    )
    cache_write: Decimal | None = field(
        default=None, metadata={"doc": "A million prompt tokens kept at a cache point; else as input."}
    )
    image: Decimal = field(
        default=Decimal(0), metadata={"doc": "A picture of standard quality of at most 1024 x 1024 pixels."}
    )
    image_large: Decimal = field(default=Decimal(0), metadata={"doc": "A larger picture of standard quality."})
    image_premium: Decimal = field(
        default=Decimal(0), metadata={"doc": "A picture of premium quality of at most 1024 x 1024 pixels."}
    )
    image_premium_large: Decimal = field(default=Decimal(0), metadata={"doc": "A larger picture of premium quality."})
    video_second: Decimal = field(default=Decimal(0), metadata={"doc": "A second of film."})

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None and not (value.is_finite() and 0 <= value <= 10**6):
                raise ConfigError(f"prices: {name}: {value} is not a number of dollars from 0 to a million")

    def of_images(self, count: int, *, pixels: int, premium: bool) -> Decimal:
        """Dollars of `count` pictures of `pixels` pixels each."""
        if pixels > 1024 * 1024:
            return count * (self.image_premium_large if premium else self.image_large)
        return count * (self.image_premium if premium else self.image)


def _tokens(input: str, output: str, cache_read: str) -> Price:
    return Price(input=Decimal(input), output=Decimal(output), cache_read=Decimal(cache_read))


# Amazon's on-demand prices in the US, by model id; a cache write costs what input does.
NOVA = {
    "amazon.nova-micro-v1:0": _tokens("0.035", "0.14", "0.00875"),
    "amazon.nova-lite-v1:0": _tokens("0.06", "0.24", "0.015"),
    "amazon.nova-pro-v1:0": _tokens("0.8", "3.2", "0.2"),
    "amazon.nova-premier-v1:0": _tokens("2.5", "12.5", "0.625"),
    "amazon.nova-canvas-v1:0": Price(
        image=Decimal("0.04"),
        image_large=Decimal("0.06"),
        image_premium=Decimal("0.06"),
        image_premium_large=Decimal("0.08"),
    ),
    "amazon.nova-reel-v1:0": Price(video_second=Decimal("0.08")),
    "amazon.nova-reel-v1:1": Price(video_second=Decimal("0.08")),
}

FREE = Price()


@dataclass(frozen=True, kw_only=True)
class PricesSection:
    """`[prices]`: what calls cost. Models without a price cost nothing, adapters what their bases do."""

    version: str = field(
        default="custom",
        metadata={"doc": "Name of this price list; the ledger keeps it beside each price taken from it."},
    )
    models: dict[str, Price] = field(
        default_factory=dict, metadata={"doc": "Prices by a model's name or alias, over Amazon's for Nova."}
    )
    priority: Decimal = field(
        default=Decimal("1.75"), metadata={"doc": "What the service tier `priority` multiplies a price by."}
    )
    flex: Decimal = field(
        default=Decimal("0.5"), metadata={"doc": "What the service tier `flex` multiplies a price by."}
    )
    batch: Decimal = field(default=Decimal("0.5"), metadata={"doc": "What a batch job multiplies a price by."})

    def __post_init__(self) -> None:
        if len(self.version) > 40:
            raise ConfigError("prices.version: at most 40 characters are expected")
        for name in ("priority", "flex", "batch"):
            value = getattr(self, name)
            if not (value.is_finite() and 0 <= value <= 1000):
                raise ConfigError(f"prices.{name}: {value} is not a number from 0 to 1000")


class PriceBook:
    """Prices by model, from Amazon's list and the configured one over it."""

    def __init__(self, section: PricesSection | None = None) -> None:
        section = section or PricesSection()
        self._configured = {name: (f"{name}@{section.version}", price) for name, price in section.models.items()}
        self._nova = {name: (f"{name}@{NOVA_VERSION}", price) for name, price in NOVA.items()}
        self._multipliers = {
            "priority": section.priority,
            "default": Decimal(1),
            "flex": section.flex,
            "batch": section.batch,
        }

    def find(self, entry: ModelEntry, base: ModelEntry | None = None) -> tuple[str, Price]:
        """The price of a model, by its name or else an alias, or else of its `base`; and what it is called in the book.

        A configured price comes before Amazon's whichever name it is under. Without one: the empty name and `FREE`.
        """
        for model in (entry, base):
            if model is None:
                continue
            for prices in (self._configured, self._nova):
                for name in (model.name, *model.aliases):
                    if name in prices:
                        return prices[name]
        return "", FREE

    def cost(
        self, usage: Usage, price: Price, tier: ServiceTier | Literal["batch"] = "default", extra: Decimal = Decimal(0)
    ) -> int:
        """Picodollars of `usage` and of `extra` dollars of pictures and film; a half is rounded to even."""
        cache_read = price.input if price.cache_read is None else price.cache_read
        cache_write = price.input if price.cache_write is None else price.cache_write
        tokens = (
            usage.uncached_input_tokens * price.input
            + usage.output_tokens * price.output
            + usage.cache_read_input_tokens * cache_read
            + usage.cache_write_input_tokens * cache_write
        )
        total = (tokens * _PICODOLLARS_PER_TOKEN + extra * PICODOLLARS) * self._multipliers[tier]
        return int(total.to_integral_value(ROUND_HALF_EVEN))


def to_dollars(picodollars: int) -> Decimal:
    """The exact amount."""
    return Decimal(picodollars) / PICODOLLARS
