"""What callers are told when PostgreSQL fails them: the same on every route and over WebSockets."""

import contextlib
from collections.abc import Iterator

import asyncpg

from loam_gateway.adapters import postgres
from loam_shared.errors import InvalidRequestError, LoamError, UnavailableError

FAILURES: tuple[type[Exception], ...] = (asyncpg.DataError, *postgres.FAILURES)
"""What PostgreSQL may raise under any request."""


def failure_of(error: Exception) -> LoamError | None:
    """PostgreSQL is away, starting, stopping or out of room, or has no place for a value; None for our own mistakes."""
    if isinstance(error, asyncpg.DataError):
        return InvalidRequestError("a value of the request cannot be kept: a text with U+0000, or one out of range")
    if isinstance(error, postgres.FAILURES) and postgres.is_transient(error):
        return UnavailableError("the database cannot serve this just now", retry_after=2)
    return None


@contextlib.contextmanager
def told_failure() -> Iterator[None]:
    """Raises failures of PostgreSQL within the context as the LoamError that the caller is told."""
    try:
        yield
    except FAILURES as error:
        if told := failure_of(error):
            raise told from error
        raise
