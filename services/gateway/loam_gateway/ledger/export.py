"""Entries and acts as files: read in order as of one moment, a batch at a time, however many there are."""

import contextlib
import csv
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Protocol

import asyncpg
import orjson

from loam_gateway.adapters.postgres import Pool
from loam_shared.errors import InvalidRequestError

_AT_ONCE = 5000
# Money is there twice, the second time in USD, exactly; prices are nano-dollars per million units.
_ENTRIES = """
SELECT request_id::text, corrects::text, held_at, posted_at, kind, outcome, estimated, byok,
       tenant, key_id, user_id, run, pipeline, agent, root_request_id, model, provider, region,
       input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, queries,
       input_price, output_price, cache_read_price, cache_write_price, query_price,
       held AS held_nanos, cost AS cost_nanos, markup AS markup_nanos, saving AS saving_nanos,
       (cost * 0.000000001)::numeric(28, 9) AS cost_usd, (markup * 0.000000001)::numeric(28, 9) AS markup_usd,
       (saving * 0.000000001)::numeric(28, 9) AS saving_usd
FROM entries WHERE held_at >= $1 AND held_at < $2 AND ($3::text IS NULL OR tenant = $3)
ORDER BY held_at, request_id
"""
_ACTS = """
SELECT at, actor, action, tenant, subject, details, before, after
FROM audit_log WHERE at >= $1 AND at < $2 AND ($3::text IS NULL OR tenant = $3)
ORDER BY id
"""


class Format(StrEnum):
    """How entries are written."""

    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class Span:
    """What to write: from `start` to before `end`, of one tenant or all."""

    start: datetime
    end: datetime
    tenant: str | None = None


class _Sheet(Protocol):
    """A file of rows that is being written."""

    def add(self, rows: Sequence[asyncpg.Record]) -> None: ...


async def export_entries(pool: Pool, span: Span, path: Path, format_: Format) -> int:
    """Write the entries of requests in `span` to `path`, which is there once it is complete. Returns how many.

    Raises InvalidRequestError when Parquet is asked for and pyarrow is not installed.
    """
    open_sheet = _parquet if format_ is Format.PARQUET else _csv
    count = 0
    async with _reading(pool, _ENTRIES, span) as (columns, batches):
        with _written(path) as temporary, open_sheet(temporary, columns) as sheet:
            async for rows in batches:
                sheet.add(rows)
                count += len(rows)
    return count


async def export_acts(pool: Pool, span: Span, file: IO[bytes]) -> None:
    """Write the audit log's lines in `span` to `file`, one JSON object in each line."""
    async with _reading(pool, _ACTS, span) as (columns, batches):
        holding_json = {column.name for column in columns if column.type.name == "jsonb"}
        async for rows in batches:
            for row in rows:
                act = {
                    name: orjson.Fragment(value) if value is not None and name in holding_json else value
                    for name, value in row.items()
                }
                file.write(orjson.dumps(act, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))


@contextlib.asynccontextmanager
async def _reading(
    pool: Pool, query: str, span: Span
) -> AsyncIterator[tuple[Sequence[asyncpg.Attribute], AsyncIterator[list[asyncpg.Record]]]]:
    """The columns of `query`, and its rows in batches."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        statement = await connection.prepare(query)
        cursor = await statement.cursor(span.start, span.end, span.tenant)
        yield statement.get_attributes(), _batches(cursor)


async def _batches(cursor: "asyncpg.cursor.Cursor[asyncpg.Record]") -> AsyncIterator[list[asyncpg.Record]]:
    while rows := await cursor.fetch(_AT_ONCE):
        yield rows


@contextlib.contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place once it is complete."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield Path(name)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def _csv(path: Path, columns: Sequence[asyncpg.Attribute]) -> Iterator[_Sheet]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in columns])
        yield _CsvSheet(writer)


@dataclass(frozen=True, slots=True)
class _CsvSheet:
    writer: Any

    def add(self, rows: Sequence[asyncpg.Record]) -> None:
        self.writer.writerows(map(_csv_cell, row) for row in rows)


def _csv_cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


@contextlib.contextmanager
def _parquet(path: Path, columns: Sequence[asyncpg.Attribute]) -> Iterator[_Sheet]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra of its own
        from pyarrow import parquet  # noqa: PLC0415 - an extra of its own
    except ModuleNotFoundError as error:
        raise InvalidRequestError(
            "Parquet needs pyarrow, which is not installed: pip install 'loam[parquet]'"
        ) from error
    types = {
        "bool": pa.bool_(),
        "int8": pa.int64(),
        "numeric": pa.decimal128(28, 9),
        "text": pa.string(),
        "timestamptz": pa.timestamp("us", tz="UTC"),
    }
    schema = pa.schema([(column.name, types[column.type.name]) for column in columns])
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        yield _ParquetSheet(pa, schema, writer)


@dataclass(frozen=True, slots=True)
class _ParquetSheet:
    pa: Any
    schema: Any
    writer: Any

    def add(self, rows: Sequence[asyncpg.Record]) -> None:
        arrays = [self.pa.array([row[field.name] for row in rows], type=field.type) for field in self.schema]
        self.writer.write_batch(self.pa.record_batch(arrays, schema=self.schema))
