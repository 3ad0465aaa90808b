"""From a target to the sockets that may be opened for it, and to no others.

A name is resolved once, by `JudgedResolver`, and aiohttp connects to what that returned. Address literals never reach
a resolver, and a library may change its ways; so the last word has `admitted_socket`, through which every socket of
the client comes: it makes none for an address that was not judged for the very request that it is made for.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from loam_shared.egress.addresses import INWARD, refusing_rule
from loam_shared.egress.policy import EgressRefusedError, Policy
from loam_shared.egress.target import Target

_threads = ThreadPoolExecutor(16, thread_name_prefix="egress-resolver")
_admitted: ContextVar[set[tuple[str, int]] | None] = ContextVar("loam_egress_admitted", default=None)


def check(target: Target, policy: Policy) -> None:
    """Judge all that is known before anything is resolved. Raises EgressRefusedError."""
    if (target.host, target.port) not in policy.exempt:
        if target.scheme not in policy.schemes:
            allowed = " or ".join(sorted(policy.schemes))
            raise EgressRefusedError("scheme", f"the address is refused: it must begin with {allowed}")
        if target.port not in policy.ports:
            allowed = ", ".join(map(str, sorted(policy.ports)))
            raise EgressRefusedError("port", f"the address is refused: its port must be {allowed}")
    if target.address is not None:
        judge(target.address, target.host, target.port, policy)


def judge(address: IPv4Address | IPv6Address, host: str, port: int, policy: Policy) -> None:
    """Raises EgressRefusedError unless `address`, which `host` is or resolves to, may be connected to."""
    rule = refusing_rule(address)
    if rule is None or (rule in INWARD and (host, port) in policy.exempt):
        return
    # The rule is told for what the caller wrote itself, not for what the platform's DNS made of it.
    told = rule if str(address) == host else "not-public"
    raise EgressRefusedError(told, "the address is refused: its host is not on the public internet")


class SystemResolver(AbstractResolver):
    """The system's way to resolve names, on threads of its own.

    A tenant may name a host whose DNS server takes its time. On the threads that the whole process shares, that would
    keep everybody else from connecting to anything.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises OSError when there are none."""
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(_threads, ask)
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=0)
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """The threads are the process's."""


class JudgedResolver(AbstractResolver):
    """Resolves through another resolver. One address that may not be connected to refuses the name as a whole."""

    def __init__(self, policy: Policy, resolver: AbstractResolver) -> None:
        self._policy, self._resolver = policy, resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`, all of them judged. Raises EgressRefusedError, and OSError when there are none."""
        results = await self._resolver.resolve(host, port, family)
        for result in results:
            judge(ip_address(result["host"]), host, port, self._policy)
        admitted = _admitted.get()
        if admitted is not None:
            admitted |= {(result["host"], port) for result in results}
        return results

    async def close(self) -> None:
        """The resolver beneath is its owner's to close."""


@contextlib.contextmanager
def admitting(target: Target) -> Iterator[None]:
    """Let sockets be made, within the context, for the address of `target`, or those that its name resolves to."""
    admitted = {(target.host, target.port)} if target.address is not None else set()
    token = _admitted.set(admitted)
    try:
        yield
    finally:
        _admitted.reset(token)


def admitted_socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket for the address in `info`. Raises EgressRefusedError when it was not judged for this request."""
    family, kind, protocol, _, (host, port, *_) = info
    if (host, port) not in (_admitted.get() or ()):
        raise EgressRefusedError("not-judged", "the address is refused: its host is not on the public internet")
    return socket.socket(family, kind, protocol)
