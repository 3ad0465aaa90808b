"""A caller's filter as a typed expression: values never become part of a query's text."""

from collections.abc import Mapping, Sequence
from functools import reduce

from lancedb.expr import Expr, col

from loam_shared.contracts.retrieval import FilterValue
from loam_shared.errors import InvalidRequestError
from loam_shared.index import FILTERABLE

Filter = Mapping[str, FilterValue | list[FilterValue]]

_PAGE, _PREFIX = "page", "sourcePrefix"
_MOST_VALUES = 200
_LONGEST_VALUE = 2048
_LAST_PAGE = 2**31 - 1
_LAST_SIGN, _SURROGATES = 0x10FFFF, range(0xD800, 0xE000)


def expression(wanted: Filter) -> Expr | None:
    """All of the fields must have one of their values. Raises InvalidRequestError, which names the field."""
    parts = [_one(name, value if isinstance(value, list) else [value]) for name, value in wanted.items()]
    return reduce(lambda left, right: left & right, parts) if parts else None


def _one(name: str, values: Sequence[FilterValue]) -> Expr:
    if name not in FILTERABLE and name not in {_PAGE, _PREFIX}:
        fields = ", ".join(sorted({*FILTERABLE, _PAGE, _PREFIX}))
        raise InvalidRequestError(f"filter: there is no field {name}; filter by {fields}", param=f"filter.{name}")
    if not 1 <= len(values) <= _MOST_VALUES:
        raise _wrong(name, f"give 1 to {_MOST_VALUES} values")
    if name == _PAGE:
        return col(_PAGE).isin([_page(value) for value in values])
    texts = [_text(name, value) for value in values]
    if name == _PREFIX:
        return _any([_beginning_with(FILTERABLE["source"], text) for text in texts])
    return col(FILTERABLE[name]).isin(texts)


def _any(parts: Sequence[Expr]) -> Expr:
    return reduce(lambda left, right: left | right, parts)


def _page(value: FilterValue) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, str) or not 1 <= value <= _LAST_PAGE:
        raise _wrong(_PAGE, "give the numbers of pages, from 1")
    return value


def _text(name: str, value: FilterValue) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "give texts")
    if not value or len(value) > _LONGEST_VALUE:
        raise _wrong(name, f"give texts of 1 to {_LONGEST_VALUE} characters")
    return value


def _beginning_with(column: str, prefix: str) -> Expr:
    """Everything from the prefix on up to the first text that comes after all that begin with it.

    Columns are compared by their UTF-8 bytes, whose order is that of the code points.
    """
    least = col(column) >= prefix
    after = _after(prefix)
    return least if after is None else least & (col(column) < after)


def _after(prefix: str) -> str | None:
    """The least text after all that begin with `prefix`; None where there is none."""
    kept = prefix.rstrip(chr(_LAST_SIGN))
    if not kept:
        return None
    point = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if point in _SURROGATES else point)


def _wrong(name: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(f"filter.{name}: {message}", param=f"filter.{name}")
