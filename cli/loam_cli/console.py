"""What commands print: lines for everyone, colours and a spinner on a terminal, JSON when asked."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    out.file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table without lines, as kubectl prints them."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    out.print(table)


@contextmanager
def working(message: str) -> Iterator[None]:
    """Show that something takes its time: a spinner on a terminal, nothing elsewhere."""
    if out.is_terminal:
        with out.status(message):
            yield
    else:
        yield
