"""Which price holds: by class of tokens, and by how long the input was. Pure."""

from dataclasses import dataclass, fields

from loam_gateway.ledger.model import Price, Tokens
from loam_shared.contracts import admin
from loam_shared.money import parse_usd


@dataclass(frozen=True, slots=True)
class PriceList:
    """A model's prices. `tiers` hold once the input is longer than their first number, the longest first."""

    base: Price
    tiers: tuple[tuple[int, Price], ...] = ()

    @classmethod
    def of(cls, price: admin.Price) -> "PriceList":
        """The list in a ModelRoute. Raises ValueError for what is no amount.

        Tokens read from or written to the provider's cache cost as much as other input when nothing else is said, and
        a tier costs as much as the base for the classes that it leaves out.
        """
        base = _price(price, Price(), queries=price.per_thousand_queries)
        tiers = ((tier.above_input_tokens, _price(tier, base)) for tier in price.tiers)
        return cls(base, tuple(sorted(tiers, key=lambda tier: tier[0], reverse=True)))

    def at(self, input_tokens: int) -> Price:
        """The price for an input of that length."""
        return next((price for above, price in self.tiers if input_tokens > above), self.base)

    def dearest(self, input_tokens: int) -> Price:
        """The highest price of each class that an input of at most that length may get."""
        reachable = [self.base, *(price for above, price in self.tiers if input_tokens > above)]
        classes = (field.name for field in fields(Price))
        return Price(**{name: max(getattr(price, name) for price in reachable) for name in classes})

    def cost(self, tokens: Tokens) -> tuple[Price, int]:
        """The price that holds for `tokens`, and what they cost at it."""
        price = self.at(tokens.input + tokens.cache_read + tokens.cache_write)
        return price, price.cost(tokens)


def _price(given: admin.Price | admin.PriceTier, otherwise: Price, *, queries: str | None = None) -> Price:
    input_price = _nanos(given.input_per_million, otherwise.input)
    cache_otherwise = (otherwise.cache_read, otherwise.cache_write) if otherwise != Price() else (input_price,) * 2
    return Price(
        input=input_price,
        output=_nanos(given.output_per_million, otherwise.output),
        cache_read=_nanos(given.cache_read_per_million, cache_otherwise[0]),
        cache_write=_nanos(given.cache_write_per_million, cache_otherwise[1]),
        queries=_nanos(queries, 0) * 1000,
    )


def _nanos(text: str | None, otherwise: int) -> int:
    return otherwise if text is None else parse_usd(text)
