"""A caller's filter as a typed expression: values never become part of a query's text."""

from collections.abc import Mapping
from functools import reduce

from lancedb.expr import Expr, col

from loam_shared.errors import InvalidRequestError
from loam_shared.index import FILTERABLE

_MOST_VALUES = 200


def expression(wanted: Mapping[str, str | list[str]]) -> Expr | None:
    """All of the fields must have one of their values. Raises InvalidRequestError."""
    parts = [_one(name, [value] if isinstance(value, str) else value) for name, value in wanted.items()]
    return reduce(lambda left, right: left & right, parts) if parts else None


def _one(name: str, values: list[str]) -> Expr:
    if name not in FILTERABLE:
        fields = ", ".join(sorted(FILTERABLE))
        raise InvalidRequestError(f"filter: there is no field {name}; filter by {fields}", param=f"filter.{name}")
    if not 1 <= len(values) <= _MOST_VALUES:
        raise InvalidRequestError(f"filter.{name}: give 1 to {_MOST_VALUES} values", param=f"filter.{name}")
    return col(FILTERABLE[name]).isin(values)
