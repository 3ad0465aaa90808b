"""Logs are one JSON object a line, and no secret gets into them."""

import json
import subprocess
import sys

from loam_shared import credentials

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
