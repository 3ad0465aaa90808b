"""What `loam up` says while it works: a line for each thing that is done, and what is being waited for."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

from loam_cli.local.cluster import Event
from loam_cli.local.process import State, Supervised, last_words

_TITLES = {
    "postgres": "PostgreSQL",
    "valkey": "Valkey",
    "storage": "SeaweedFS (S3)",
    "bedrock": "Bedrock, local",
    "gateway": "gateway",
}


class Report:
    """Prints to `console`; on a terminal, the last line says what is still under way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._under_way: dict[str, str] = {}
        self._status: Status | None = None
        self._crashes: dict[str, int] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """Something that takes a moment: shown while it does, and with its time once it is done.

        What is given to the function of the context is shown beside it, such as how far it is.
        """
        title = _TITLES.get(name, name)
        began = time.monotonic()
        self._detail(title, "")
        try:
            yield lambda detail: self._detail(title, f" {detail}")
        finally:
            del self._under_way[title]
            self._show()
        self._console.print(f"[green]✓[/] {title} [dim]{time.monotonic() - began:.1f} s[/]")

    def line(self, text: str) -> None:
        """A line of its own; Rich's markup counts."""
        self._console.print(text)

    def warn(self, text: str) -> None:
        """Something that needs attention; printed as it is."""
        self._console.print(f"! {text}", style="yellow", markup=False)

    def process(self, name: str, process: Supervised) -> None:
        """Say when a program that was started crashes, and when it is back."""
        title = _TITLES.get(name, name)
        if process.state is State.CRASHED:
            self._crashes[name] = self._crashes.get(name, 0) + 1
            words = last_words(process.log)
            self.warn(f"{title} ended with code {process.exit_code}; starting it again. Its last words: {words}")
        elif process.state is State.READY and self._crashes.pop(name, 0):
            self.line(f"[green]✓[/] {title} is back")

    def event(self, event: Event) -> None:
        """Say what the operator found wrong with an object."""
        if event.type == "Warning":
            self.warn(f"{event.about}: {event.message}")

    @property
    def seconds(self) -> float:
        """How long ago this began."""
        return time.monotonic() - self._began

    def _detail(self, title: str, detail: str) -> None:
        self._under_way[title] = detail
        self._show()

    def _show(self) -> None:
        if not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        if self._under_way:
            self._status.update(", ".join(map("".join, self._under_way.items())) + " …")
        else:
            self._status.stop()
            self._status = None
