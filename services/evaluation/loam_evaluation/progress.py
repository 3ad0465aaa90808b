"""Progress on standard error: a line that is written over on a terminal, one every half minute elsewhere."""

import sys
import time


class Steps:
    """Counts steps of one job of known size and says how long the rest will take."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = self._computed = 0
        self._began = time.monotonic()
        self._said = self._began
        self._every = 0.5 if sys.stderr.isatty() else 30.0

    def __call__(self, steps: int) -> None:
        """So many more are done."""
        self._computed += steps
        self._done += steps
        now = time.monotonic()
        if now - self._said >= self._every:
            self._said = now
            self._say(now)

    def known(self, steps: int) -> None:
        """So many were done before, which says nothing about the speed."""
        self._done += steps

    def _say(self, now: float) -> None:
        left = (self._total - self._done) * (now - self._began) / self._computed if self._computed else None
        rest = f", about {_in_words(left)} left" if left is not None else ""
        line = f"{self._what}: {self._done} of {self._total}{rest}"
        sys.stderr.write(f"\r\x1b[K{line}" if sys.stderr.isatty() else f"{line}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the terminal's line clean."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
