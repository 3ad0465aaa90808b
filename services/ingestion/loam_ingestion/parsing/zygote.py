"""The helper process: ``python -I -m loam_ingestion.parsing CONTROL``, where CONTROL is its end of a socket pair.

It gives up the network, imports the parsers once, and then, request by request, forks a child and tells how that one
ended. It has one thread and does one document at a time, so that forking is safe and a child that gets hold of its
zygote spoils no document but its own. It never looks at a document itself.
"""

import contextlib
import ctypes
import gc
import os
import socket
import sys

import orjson

from loam_ingestion.parsing import child, leash, seccomp
from loam_ingestion.parsing.wire import ENDED, HELLO, REQUEST_BYTES, Request


def main() -> None:
    """Serve until the worker closes its end or ends."""
    control = socket.socket(fileno=int(sys.argv[1]))
    left, filtered = leash.leave_the_network(), seccomp.program()
    leash.end_with_parent()
    child.warm_up()
    gc.collect()
    gc.freeze()  # A collection in a child would touch, and so copy, every page.
    # A worker that is gone, whether it said so or not, needs no answer.
    with contextlib.suppress(ConnectionError):
        control.sendall(HELLO)
        while serve(control, filtered, isolated=left or filtered is not None):
            pass


def serve(control: socket.socket, filtered: ctypes.Structure | None, *, isolated: bool) -> bool:
    """Do one request; False when there will be no more."""
    line, descriptors, _, _ = socket.recv_fds(control, REQUEST_BYTES, 2)
    if len(descriptors) != 2 or not line.endswith(b"\n"):
        return False
    document, answer = descriptors
    zygote = os.getpid()
    pid = os.fork()
    if pid == 0:
        control.close()
        child.run(Request(**orjson.loads(line)), document, answer, zygote, filtered)
    os.close(document)
    os.close(answer)
    _, status = os.waitpid(pid, 0)
    # What the child left running in its group goes with the group, when the worker closes.
    control.sendall(ENDED.pack(os.waitstatus_to_exitcode(status), isolated))
    return True
