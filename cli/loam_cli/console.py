"""What commands print: lines for everyone, colours and a spinner on a terminal, JSON when asked."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    out.file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns without lines, as wide as they must be, as kubectl prints them."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        line = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.print(line.rstrip(), style="bold" if row is columns else "", markup=False)


@contextmanager
def working(message: str) -> Iterator[Callable[[str], None]]:
    """Show that something takes its time: a spinner on a terminal, nothing elsewhere.

    What is given to the function of the context is shown from then on, such as how far it is.
    """
    if out.is_terminal:
        with out.status(escape(message)) as status:
            yield lambda text: status.update(escape(text))
    else:
        yield lambda _: None
