"""Becomes the program it is given, once the guard knows of it. Runs alone (``python -I -S launch.py``), stdlib only.

Usage: ``launch.py GUARD_FD STOP_SIGNAL USER PROGRAM [ARGUMENT …]``; USER is ``-`` to stay who we are.
"""

import ctypes
import os
import pwd
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_ANYONE_BUT_ROOT = 1000


def main(guard: str, stop_signal: str, user: str, *command: str) -> None:
    """Tell the guard, drop privileges, exec. The guard's pipe stays open until the guard has been told."""
    if user != "-":
        become(user)
    os.write(int(guard), f"+{os.getpid()} {stop_signal}\n".encode())
    os.close(int(guard))
    os.execv(command[0], command)  # noqa: S606 - this is the very purpose


def become(user: str) -> None:
    """Stop being root, for programs that refuse to be; the working directory becomes ours whoever we are then.

    Where the kernel allows it, a user namespace of our own gives us another name for what we are: files below a home
    folder that only root may enter stay in reach. Elsewhere we change to `user`.
    """
    if Path.cwd().stat().st_uid == os.geteuid() and _rename_ourselves():
        return
    entry = pwd.getpwnam(user)
    os.chown(Path.cwd(), entry.pw_uid, entry.pw_gid)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _rename_ourselves() -> bool:
    user, group = os.geteuid(), os.getegid()
    if sys.platform != "linux" or ctypes.CDLL(None).unshare(_CLONE_NEWUSER) != 0:
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{_ANYONE_BUT_ROOT} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{_ANYONE_BUT_ROOT} {group} 1")
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
