"""Money as integers: one nano-dollar is the smallest amount that Loam knows, and rounding is always up.

Decimal strings in USD stand at the edges (manifests, HTTP bodies, headers); inside, every amount is an `int` of
nano-dollars and every price an `int` of nano-dollars per million units, so that sums never drift.
"""

from decimal import ROUND_CEILING, Decimal, InvalidOperation

NANOS_PER_USD = 1_000_000_000
UNITS_PER_PRICE = 1_000_000
MAX_NANOS = 2**62


def parse_usd(text: str) -> int:
    """Nano-dollars in a decimal string such as ``"0.25"``, rounded up.

    Raises ValueError with a sentence for people when the text is no amount, negative, or too large.
    """
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ValueError(f'"{text}" is not an amount in USD; write a decimal such as "0.25"') from None
    if not amount.is_finite() or amount < 0:
        raise ValueError(f'"{text}" must be an amount of at least 0 in USD, such as "0.25"')
    # Compared before it is multiplied: "1e999999" is an amount, too, and would overflow.
    if amount > Decimal(MAX_NANOS) / NANOS_PER_USD:
        raise ValueError(f'"{text}" is larger than the ledger can hold (about 4.6 billion USD)')
    return int((amount * NANOS_PER_USD).to_integral_value(ROUND_CEILING))


def format_usd(nanos: int) -> str:
    """Nano-dollars as a plain decimal string without trailing zeros: 1500000000 becomes ``"1.5"``."""
    text = f"{Decimal(nanos) / NANOS_PER_USD:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def price_of(units: int, nanos_per_million: int) -> int:
    """Nano-dollars for `units` (tokens, say) at a price per million of them, rounded up."""
    return -(-units * nanos_per_million // UNITS_PER_PRICE)
