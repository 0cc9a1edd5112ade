from decimal import Decimal
from types import SimpleNamespace

import pytest

from kilonova.core.config import parse_config
from kilonova.core.errors import ConfigError
from kilonova.core.types import Usage
from kilonova.serve.ledger.prices import FREE, NOVA_VERSION, Price, PriceBook, PricesSection, to_dollars

MICRO = "amazon.nova-micro-v1:0"


def entry(name: str, *aliases: str) -> SimpleNamespace:
    return SimpleNamespace(name=name, aliases=aliases)


def cost(usage: Usage, tier: str = "default", name: str = MICRO, **section) -> Decimal:
    book = PriceBook(PricesSection(**section))
    _, price = book.find(entry(name))
    return to_dollars(book.cost(usage, price, tier))


def test_default_prices_are_amazons() -> None:
    # The public list is in dollars for a thousand tokens.
    usage = Usage(1000 + 2000 + 3000, 500, cache_read_input_tokens=2000, cache_write_input_tokens=3000)
    expected = Decimal("0.000035") * (1 + 3) + Decimal("0.00000875") * 2 + Decimal("0.00014") / 2
    assert cost(usage) == expected
    assert cost(Usage(1000, 0), name="amazon.nova-lite-v1:0") == Decimal("0.00006")
    assert cost(Usage(0, 1000), name="amazon.nova-pro-v1:0") == Decimal("0.0032")
    assert cost(Usage(1000, 1000), name="amazon.nova-premier-v1:0") == Decimal("0.015")


@pytest.mark.parametrize(("tier", "factor"), [("priority", "1.75"), ("flex", "0.5"), ("batch", "0.5")])
def test_tiers_multiply(tier: str, factor: str) -> None:
    assert cost(Usage(2000, 1000), tier) == Decimal("0.00021") * Decimal(factor)


def test_a_token_is_exact_and_half_a_picodollar_is_rounded_to_even() -> None:
    assert cost(Usage(1, 0)) == Decimal("0.000000035")
    assert cost(Usage(1, 0, cache_read_input_tokens=1), "flex") == Decimal("0.000000004375")
    # 8,750 picodollars by 1.75 are 15,312.5.
    assert cost(Usage(1, 0, cache_read_input_tokens=1), "priority") == Decimal("0.000000015312")
    assert cost(Usage(3, 0, cache_read_input_tokens=3), "priority") == Decimal("0.000000045938")


def test_pictures_and_film() -> None:
    book = PriceBook()
    _, canvas = book.find(entry("amazon.nova-canvas-v1:0"))
    assert canvas.of_images(2, pixels=1024 * 1024, premium=False) == Decimal("0.08")
    assert canvas.of_images(1, pixels=1280 * 1024, premium=False) == Decimal("0.06")
    assert canvas.of_images(1, pixels=512 * 512, premium=True) == Decimal("0.06")
    assert canvas.of_images(1, pixels=2048 * 2048, premium=True) == Decimal("0.08")
    _, reel = book.find(entry("amazon.nova-reel-v1:1"))
    seconds = book.cost(Usage(0, 0), reel, extra=6 * reel.video_second)
    assert to_dollars(seconds) == Decimal("0.48")


def test_prices_are_found_by_name_alias_or_base() -> None:
    book = PriceBook(PricesSection(version="ours-3", models={"mine": Price(input=Decimal(2)), "micro": Price()}))
    micro = entry("micro", "amazon.nova-micro-v1:0")
    assert PriceBook().find(micro)[0] == f"{MICRO}@{NOVA_VERSION}"
    assert book.find(micro) == ("micro@ours-3", Price())  # A configured price comes first.
    assert book.find(entry("mine"))[1].input == 2
    assert book.find(entry("adapter"), entry("mine"))[0] == "mine@ours-3"
    assert book.find(entry("adapter"), entry("unknown")) == ("", FREE)
    assert book.find(entry("unknown")) == ("", FREE)


def test_configuration_is_exact_and_checked() -> None:
    section = parse_config(PricesSection, {"flex": 0.3, "models": {"mine": {"input": 0.1, "output": "0.70"}}})
    assert section.models["mine"] == Price(input=Decimal("0.1"), output=Decimal("0.70"))
    assert section.flex == Decimal("0.3")
    with pytest.raises(ConfigError, match=r"models\.mine\.inpt.*'input'"):
        parse_config(PricesSection, {"models": {"mine": {"inpt": 1}}})
    with pytest.raises(ConfigError, match="input: -1"):
        Price(input=Decimal(-1))
    with pytest.raises(ConfigError, match="flex"):
        parse_config(PricesSection, {"flex": "NaN"})
