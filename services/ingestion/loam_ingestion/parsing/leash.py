"""What a process takes away from itself, for good, before it touches a document."""

import ctypes
import resource
import signal
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG = 1


def leave_the_network() -> bool:
    """Move into a network namespace of its own, which has no interfaces; False where the system does not allow it."""
    if sys.platform != "linux":
        return False
    return any(LIBC.unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))


def end_with_parent() -> None:
    """Ask to be killed when the parent ends. (Elsewhere than on Linux the end of a socket and of time must do.)"""
    if sys.platform == "linux":
        LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def limit(memory_bytes: int, cpu_seconds: int, wall_seconds: float) -> None:
    """Bound what this process may use from now on; it may write no file at all."""
    limits = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    if sys.platform == "linux":  # macOS refuses to limit the address space.
        limits[resource.RLIMIT_AS] = memory_bytes
    for kind, most in limits.items():
        # At the soft limit of CPU time comes a signal that names the cause, at the hard one a plain kill.
        resource.setrlimit(kind, (most, most + 1 if kind == resource.RLIMIT_CPU else most))
    # The worker stops a child at this time; should the worker be gone, the child stops by itself.
    signal.setitimer(signal.ITIMER_REAL, wall_seconds + 5)
