"""Logs are one JSON object a line, and no secret gets into them."""

import json
import subprocess
import sys

import pytest

from loam_shared import credentials
from loam_shared.logging import masked

KEY = credentials.new_api_key()


def logged(statement: str) -> dict[str, str]:
    """The one line that a process logs when it runs `statement`."""
    setup = "import logging, structlog; from loam_shared import logging as ours; ours.configure(service='tested');"
    command = [sys.executable, "-c", setup + statement]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(process.stderr)


def test_a_key_in_any_field_is_masked() -> None:
    line = logged(f"structlog.get_logger().info('called with {KEY}', header='Bearer {KEY}', plain='unharmed')")
    assert KEY not in str(line)
    assert (line["plain"], line["service"], line["level"]) == ("unharmed", "tested", "info")


def test_a_librarys_log_line_is_json_and_masked_too() -> None:
    line = logged(f"logging.getLogger('some.library').warning('sending Authorization: Bearer %s', '{KEY}')")
    assert KEY not in str(line)
    assert line["level"] == "warning"


def test_an_exception_is_logged_without_the_key_in_it() -> None:
    line = logged(
        "\ntry:\n    raise RuntimeError('"
        + KEY
        + "')\nexcept RuntimeError:\n    structlog.get_logger().exception('oh')"
    )
    assert "RuntimeError" in line["exception"]
    assert KEY not in str(line)


@pytest.mark.parametrize(
    ("text", "as_logged"),
    [
        (f"the key {KEY}, again", f"the key {KEY[:9]}***, again"),
        ("authorization: bearer abc.def-1", "authorization: bearer ***"),
        ("sk-ant-api03-abcdefghij0123", "sk-***"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIA***"),
        ("eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl", "eyJ***"),
        ("https://hooks.slack.com/services/T0/B0/xyz", "https://hooks.slack.com/services/***"),
        ("postgresql://loam:s3cret@db:5432/loam", "postgresql://loam:***@db:5432/loam"),
        ("written by jane.doe+x@mail.example.com today", "written by ***@*** today"),
        ("card 4111 1111 1111 1111.", "card ***."),
        ("card 5500-0000-0000-0004", "card ***"),
    ],
)
def test_a_secret_an_address_or_a_card_number_in_any_text_is_masked(text: str, as_logged: str) -> None:
    assert masked(text) == as_logged


@pytest.mark.parametrize(
    "text",
    [
        "loam_gateway.metering.chat took 3 s",
        "loam_rate_limits_failed_open_total",
        "request 3f0c1d2e-1111-4222-8333-444455556666 of tenant acme",
        "4111 1111 1111 1112 has the wrong check digit",
        "at 2026-11-21T08:10:31.000000Z on port 18080",
        "PostgreSQL does not answer at 127.0.0.1:5432",
    ],
)
def test_what_only_looks_alike_is_left_as_it_is(text: str) -> None:
    assert masked(text) == text


def test_secrets_are_masked_however_deep_they_lie() -> None:
    line = logged(
        f"structlog.get_logger().info('x', body={{'keys': ['{KEY}', ({KEY!r},)]}}, error=ValueError('{KEY}'))"
    )
    assert KEY not in str(line)
    assert "loam_" in str(line)
