"""Outlives `loam up` for a moment to end what it started. Runs alone (``python -I -S guard.py``), stdlib only.

Every child says on a pipe who it is before it becomes a server (see launch.py), and `loam up` says who has ended. When
the pipe closes, `loam up` is gone, however it went: kill -9 included. What is still there then is stopped, process
group by process group. One mechanism for every system, so what the tests see on Linux holds on macOS too.
"""

import os
import signal
import sys
import time

_GRACE_SECONDS = 3.0


def main() -> None:
    """Read who lives and who ended until the pipe closes, then end who is left."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    living: dict[int, int] = {}
    for line in sys.stdin:
        pid, _, stop_signal = line[1:].partition(" ")
        if line.startswith("+"):
            living[int(pid)] = int(stop_signal)
        else:
            living.pop(int(pid), None)
    end(living)


def end(living: dict[int, int]) -> None:
    """Send each process group its own signal, then SIGKILL to those that do not heed it."""
    for group, stop_signal in living.items():
        _signal(group, stop_signal)
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(_signal(group, 0) for group in living) and time.monotonic() < deadline:
        time.sleep(0.02)
    for group in living:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Whether there was anyone to hear it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # macOS answers "not permitted" for a group of which only zombies are left.
        return False
    return True


if __name__ == "__main__":
    main()
