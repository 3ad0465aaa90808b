"""Cron schedules as one regular expression, so that the API server and Python refuse the same ones."""

_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DAYS = "sun|mon|tue|wed|thu|fri|sat"


def _field(value: str) -> str:
    """A comma-separated list of values, ranges and steps."""
    item = rf"(\*|({value})(-({value}))?)(/[1-9][0-9]?)?"
    return f"{item}(,{item})*"


_FIELDS = (
    _field("[0-5]?[0-9]"),
    _field("1?[0-9]|2[0-3]"),
    _field("0?[1-9]|[12][0-9]|3[01]"),
    _field(f"0?[1-9]|1[0-2]|(?i:{_MONTHS})"),
    _field(f"[0-7]|(?i:{_DAYS})"),
)

CRON = f"^(@(hourly|daily|midnight|weekly|monthly|yearly|annually)|{' '.join(_FIELDS)})$"
"""Minute, hour, day of month, month and day of week, or one of the usual names."""
