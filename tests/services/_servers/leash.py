"""Runs a command that ends when whoever started it does, however that ends: ``leash.py SIGNAL USER command …``.

Standard input is a pipe that nobody writes to; it breaks when the starter is gone. USER is ``-`` for our own.
SIGTERM sends SIGNAL to the command, SIGUSR1 kills it and all that it started.
"""

import os
import signal
import subprocess
import sys
import threading
from functools import partial

from loam_cli.local.launch import become


def main() -> int:
    """Run the command; its exit code."""
    stop_signal, user, *command = sys.argv[1:]
    change_user = None if user == "-" else partial(become, user)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=change_user,  # noqa: PLW1509 - there is no other thread yet
    )
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(int(stop_signal)))
    signal.signal(signal.SIGUSR1, lambda *_: os.killpg(process.pid, signal.SIGKILL))
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.killpg(process.pid, signal.SIGQUIT)

    threading.Thread(target=follow, daemon=True).start()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
