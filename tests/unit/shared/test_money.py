"""Money: exact, in integers, and never rounded in the caller's favour."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loam_shared.money import MAX_NANOS, NANOS_PER_USD, format_usd, parse_usd, price_of


@given(st.integers(min_value=0, max_value=MAX_NANOS))
def test_an_amount_survives_writing_and_reading(nanos: int) -> None:
    assert parse_usd(format_usd(nanos)) == nanos


@given(st.integers(min_value=0, max_value=10**9), st.integers(min_value=0, max_value=10**12))
def test_a_price_is_rounded_up_by_less_than_one_nano_dollar(units: int, price: int) -> None:
    exact = Decimal(units) * Decimal(price) / 1_000_000
    assert 0 <= price_of(units, price) - exact < 1


@pytest.mark.parametrize(
    "text", ["-5", "", "five", "NaN", "Infinity", "1e30", "1e999999", "1e999999999999999999", "0x10", "--1"]
)
def test_what_is_no_amount_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r'^".*" (is not|must be|is larger)'):
        parse_usd(text)


def test_less_than_a_nano_dollar_still_costs_one() -> None:
    assert parse_usd("0.0000000001") == 1


def test_amounts_are_written_without_trailing_zeros_or_exponents() -> None:
    assert [format_usd(nanos) for nanos in (0, 1, 10, 1_500_000_000, 500 * NANOS_PER_USD)] == [
        "0",
        "0.000000001",
        "0.00000001",
        "1.5",
        "500",
    ]
