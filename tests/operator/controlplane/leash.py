"""Runs a command that ends when whoever started it does, however that ends: ``python leash.py command …``.

Standard input is a pipe that nobody writes to; it breaks when the starter is gone.
"""

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Run the command; its exit code."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())

    def follow() -> None:
        os.read(sys.stdin.fileno(), 1)
        process.kill()

    threading.Thread(target=follow, daemon=True).start()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
