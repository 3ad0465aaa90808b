"""The ledger as files: every entry once, money exactly, and the audit log line by line."""

import asyncio
import csv
import io
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from pyarrow import parquet

from loam_gateway.ledger.export import Format, Span, export_acts, export_entries
from loam_gateway.ledger.model import Kind, Price, Settlement, Tokens
from loam_shared.errors import InvalidRequestError

from .conftest import granted, new_customer, paid


@pytest.fixture
async def entries(customer, ledger):
    """A paid request, a cached one, and a correction; and what another tenant did meanwhile."""
    request = customer.request(2**50, user="ada, Countess", markup_ppm=20_000, root_request_id='says "hi"\n')
    hold = granted(await ledger.hold(request))
    await ledger.settle(hold, Settlement(2**50, Tokens(output=7), Price(output=3), estimated=True))
    await ledger.record(customer.request(kind=Kind.CACHE_HIT), Settlement(0, saving_nanos=1))
    await ledger.settle(granted(await ledger.hold(customer.request(0, byok=True))), Settlement(0))
    await ledger.correct(hold, -1, actor="ada", reason="rounding")
    other = await new_customer(customer.pool)
    await ledger.settle(granted(await ledger.hold(other.request(1))), paid(1))
    return hold


def all_time(tenant=None):
    return Span(datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1), tenant)


async def test_a_csv_file_has_every_entry_with_money_as_integers_and_as_exact_decimals(customer, entries, tmp_path):
    path = tmp_path / "entries.csv"
    assert await export_entries(customer.pool, all_time(customer.name), path, Format.CSV) == 4
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    first = next(row for row in rows if row["cost_nanos"] == str(2**50))
    assert first["cost_usd"] == "1125899.906842624"
    assert first["markup_usd"] == "22517.998136853"
    assert (first["user_id"], first["root_request_id"]) == ("ada, Countess", 'says "hi"\n')
    assert (first["estimated"], first["byok"], first["output_price"]) == ("true", "false", "3")
    assert datetime.fromisoformat(first["held_at"]) == entries.held_at
    assert {row["saving_usd"] for row in rows} == {"0.000000000", "0.000000001"}
    assert [row["byok"] for row in rows].count("true") == 1
    (correction,) = [row for row in rows if row["corrects"]]
    assert (correction["corrects"], correction["cost_usd"]) == (first["request_id"], "-0.000000001")
    assert {row["tenant"] for row in rows} == {customer.name}


async def test_a_parquet_file_has_the_same_with_types(customer, entries, tmp_path):
    path = tmp_path / "entries.parquet"
    await export_entries(customer.pool, all_time(customer.name), path, Format.PARQUET)
    table = parquet.read_table(path)
    assert table.schema.field("cost_usd").type == pa.decimal128(28, 9)
    assert table.schema.field("held_at").type == pa.timestamp("us", tz="UTC")
    assert sum(table["cost_nanos"].to_pylist()) == 2**50 - 1
    assert sum(table["cost_usd"].to_pylist()) == Decimal(2**50 - 1) / 10**9
    assert entries.held_at in table["held_at"].to_pylist()
    assert sorted(table["byok"].to_pylist()) == [False, False, False, True]


@pytest.mark.parametrize("format_", Format)
async def test_a_file_without_entries_still_names_its_columns(customer, ledger, tmp_path, format_):
    path = tmp_path / "none"
    assert await export_entries(customer.pool, all_time("nobody"), path, format_) == 0
    names = path.read_text().split(",") if format_ is Format.CSV else parquet.read_schema(path).names
    assert (names[0], len(names)) == ("request_id", 35)


async def test_a_span_takes_its_start_and_leaves_its_end(customer, ledger, tmp_path):
    holds = [granted(await ledger.hold(customer.request(number))) for number in range(3)]
    for hold in holds:
        await ledger.settle(hold, paid(hold.nanos))
    span = Span(holds[0].held_at, holds[2].held_at, customer.name)
    assert await export_entries(customer.pool, span, tmp_path / "two.csv", Format.CSV) == 2


async def test_all_tenants_are_written_in_the_order_of_time_in_many_batches(customer, ledger, tmp_path, monkeypatch):
    monkeypatch.setattr("loam_gateway.ledger.export._AT_ONCE", 7)
    holds = await asyncio.gather(*(ledger.hold(customer.request(1)) for _ in range(40)))
    await asyncio.gather(*(ledger.settle(granted(hold), paid(1)) for hold in holds))
    path = tmp_path / "all.csv"
    count = await export_entries(customer.pool, all_time(), path, Format.CSV)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count == await customer.pool.fetchval("SELECT count(*) FROM entries WHERE held_at < now()")
    assert [row["held_at"] for row in rows] == sorted(row["held_at"] for row in rows)
    assert len({row["request_id"] for row in rows}) == count


async def test_an_export_that_fails_leaves_the_file_that_was_there(customer, entries, tmp_path, monkeypatch):
    path = tmp_path / "entries.parquet"
    path.write_text("of yesterday")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidRequestError, match=r"pip install 'loam\[parquet\]'"):
        await export_entries(customer.pool, all_time(), path, Format.PARQUET)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("entries.parquet", "of yesterday")]


async def test_the_audit_log_is_one_json_object_in_each_line(customer, ledger):
    await ledger.set_policy(customer.cap(10), actor="ada")
    await ledger.set_policy(customer.cap(7), actor="bob")
    file = io.BytesIO()
    await export_acts(customer.pool, all_time(customer.name), file)
    acts = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [(act["actor"], act["before"], act["after"]) for act in acts] == [
        ("ada", None, {"nanos": 10}),
        ("bob", {"nanos": 10}, {"nanos": 7}),
    ]
    assert all(datetime.fromisoformat(act["at"]).tzinfo for act in acts)


async def run(*command, database_url):
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "LOAM_DATABASE_URL": database_url},
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_the_commands_do_all_of_it(customer, entries, database_url, tmp_path):
    path = tmp_path / "entries.csv"
    loam = (sys.executable, "-c", "from loam_cli.main import main; main()", "ledger")
    gateway = (sys.executable, "-m", "loam_gateway", "ledger")
    span = ("--from", "2020-01-01", "--tenant", customer.name)
    exported, audited, verified, nowhere, away = await asyncio.gather(
        run(*loam, "export", *span, "-o", str(path), database_url=database_url),
        run(*loam, "audit", *span, database_url=database_url),
        run(*gateway, "verify", database_url=database_url),
        run(*gateway, "export", *span, "-o", str(tmp_path / "no" / "such"), database_url=database_url),
        run(*gateway, "verify", database_url="postgresql://loam@127.0.0.1:1/none"),
    )
    assert exported == (0, "ledger: 4 entries\n")
    assert path.read_text().count(customer.name) == 4
    assert audited[0] == 0
    assert json.loads(audited[1].splitlines()[0])["action"] == "ledger.correct"
    assert verified[0] in (0, 1)
    assert "open holds" in verified[1]
    assert (nowhere[0], "cannot be written" in nowhere[1]) == (2, True)
    assert (away[0], "PostgreSQL does not answer" in away[1]) == (2, True)
