"""Becomes the program it is given, once the guard knows of it. Runs alone (``python -I -S launch.py``), stdlib only.

Usage: ``launch.py GUARD_FD STOP_SIGNAL USER PROGRAM [ARGUMENT …]``; USER is ``-`` to stay who we are.
"""

import ctypes
import os
import pwd
import sys
from pathlib import Path

# So that changing the user takes no capability, and access(2), by which PostgreSQL looks for its programs, counts it.
_PR_SET_SECUREBITS, _NO_SETUID_FIXUP = 28, 1 << 2
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def main(guard: str, stop_signal: str, user: str, *command: str) -> None:
    """Tell the guard, drop privileges, exec. The guard's pipe stays open until the guard has been told."""
    if user != "-":
        become(user)
    os.write(int(guard), f"+{os.getpid()} {stop_signal}\n".encode())
    os.close(int(guard))
    os.execv(command[0], command)  # noqa: S606 - this is the very purpose


def become(user: str) -> None:
    """Stop being root, for programs that refuse to be; the working directory becomes the new user's.

    One right stays: to reach files whoever they belong to, as a checkout or data folder may lie below root's own home.
    """
    entry = pwd.getpwnam(user)
    os.chown(Path.cwd(), entry.pw_uid, entry.pw_gid)
    libc = ctypes.CDLL(None)
    if sys.platform == "linux":
        libc.prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    if sys.platform == "linux":
        _keep_access_to_files(libc)


def _keep_access_to_files(libc: ctypes.CDLL) -> None:
    """Leave CAP_DAC_OVERRIDE, and nothing else, as effective, permitted, inheritable and ambient capability."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    bit = 1 << _CAP_DAC_OVERRIDE
    # Two blocks (low and high capabilities) of effective, permitted and inheritable sets.
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    if libc.capset(header, sets) == 0:
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
