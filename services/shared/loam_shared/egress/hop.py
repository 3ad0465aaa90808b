"""One request of a chain of redirects."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from loam_shared.egress.policy import EgressRefusedError
from loam_shared.egress.target import Target
from loam_shared.errors import InvalidRequestError

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]{1,128}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# These belong to the connection, or say whom the request is meant for.
_NOT_THE_CALLERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect"}
    | {"accept-encoding", "proxy-authorization", "proxy-connection"}
)
# Anything else may be a credential, whatever it is called.
_KEPT_ACROSS_ORIGINS = frozenset({"accept", "accept-encoding", "accept-language", "content-type", "user-agent"})
_OURS = {"accept-encoding": "identity", "user-agent": "loam"}


@dataclass(frozen=True, slots=True)
class Hop:
    """What is sent where. Names of headers are in lower case."""

    method: str
    target: Target
    headers: dict[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)

    @classmethod
    def first(cls, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Self:
        """What the caller asked for. Raises EgressRefusedError, and InvalidRequestError for what HTTP cannot say."""
        if method not in _METHODS:
            raise InvalidRequestError(f"the method {method!r} is none of {', '.join(sorted(_METHODS))}")
        given = {name.lower(): value for name, value in headers.items()}
        for name, value in given.items():
            if name in _NOT_THE_CALLERS or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
                raise InvalidRequestError(f"the header {name!r} cannot be set, or not to this value")
        return cls(method, Target.of(url), _OURS | given, body)

    def redirected(self, status: int, location: str) -> "Hop":
        """What a redirect asks for. Raises EgressRefusedError when it gives up TLS, or leads to no plain URL."""
        target = self.target.follow(location)
        if self.target.scheme == "https" and target.scheme != "https":
            raise EgressRefusedError("downgrade", "the address is refused: it redirects from https to http")
        headers, method, body = self.headers, self.method, self.body
        if target.origin != self.target.origin:
            headers = {name: value for name, value in headers.items() if name in _KEPT_ACROSS_ORIGINS}
        if status == 303 or (status in {301, 302} and method == "POST"):
            method, body = ("HEAD" if method == "HEAD" else "GET"), None
            headers = {name: value for name, value in headers.items() if name != "content-type"}
        return Hop(method, target, headers, body)
