"""URLs that tenants write, read by one strict grammar: what is checked is what is connected to.

Every second notation that some library would understand (numbers instead of dotted IPv4, user info, percent-encoded
or full-width hosts that turn into addresses, zone ids, backslashes) is either brought into the one form or refused.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Self

import idna
from yarl import URL

from loam_shared.egress.policy import EgressRefusedError

_GRAMMAR = re.compile(
    r"(?P<scheme>https?)://(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[^\[\]@:/?#%]+))(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>[/?#].*)?",
    re.IGNORECASE,
)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*")
_ENDS_IN_NUMBER = re.compile(r"(^|\.)([0-9]+|0x[0-9a-f]*)$")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LONGEST = 2048


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in its one form. `address` is set when the host is an address and not a name."""

    url: URL
    scheme: str
    host: str
    port: int
    address: IPv4Address | IPv6Address | None

    @classmethod
    def of(cls, text: str) -> Self:
        """Raises EgressRefusedError when `text` is no plain http or https URL."""
        if len(text) > _LONGEST or not text.isprintable() or re.search(r"[\s\\]", text):
            raise _refused(f"it must be an http or https URL of at most {_LONGEST} characters without spaces")
        parts = _GRAMMAR.fullmatch(text)
        if parts is None:
            raise _refused("it must be an http or https URL with a plain host, and without a user or password")
        scheme = parts["scheme"].lower()
        address = _v6(parts["v6"]) if parts["v6"] else _v4(_ascii(parts["name"]))
        host = str(address) if address else _ascii(parts["name"])
        port = int(parts["port"] or _DEFAULT_PORTS[scheme])
        return cls(_url(scheme, host, port, parts["rest"] or "/"), scheme, host, port, address)

    def follow(self, location: str) -> "Target":
        """Where a redirect leads. Raises EgressRefusedError when that is no plain http or https URL."""
        # A reference that names a host is read by the grammar; only the rest is joined.
        if re.match(r"[a-zA-Z][-+.a-zA-Z0-9]*:", location):
            return Target.of(location)
        if location.replace("\\", "/").startswith("//"):
            return Target.of(f"{self.scheme}:{location}")
        try:
            return Target.of(str(self.url.join(URL(location))))
        except ValueError as error:
            raise _refused("a redirect leads to what is no URL") from error

    @property
    def origin(self) -> tuple[str, str, int]:
        """Whom credentials are meant for."""
        return self.scheme, self.host, self.port


def _refused(message: str) -> EgressRefusedError:
    return EgressRefusedError("url", f"the address is refused: {message}")


def _ascii(name: str) -> str:
    """The name as the DNS has it: lower case, without the last dot. Full-width digits and dots become plain ones."""
    try:
        ascii_name = name.lower() if name.isascii() else idna.encode(name, uts46=True).decode()
    except idna.IDNAError as error:
        raise _refused("its host is no name") from error
    host = ascii_name.removesuffix(".")
    if not _HOST.fullmatch(host):
        raise _refused("its host is no name")
    return host


def _v4(name: str) -> IPv4Address | None:
    try:
        return IPv4Address(name)
    except AddressValueError:
        if _ENDS_IN_NUMBER.search(name):
            # What resolvers and browsers would take for an address: octal, hexadecimal, too few or too large parts.
            raise EgressRefusedError("notation", "the address is refused: write IPv4 as four decimal numbers") from None
        return None


def _v6(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except AddressValueError as error:
        raise _refused("its host is no IPv6 address") from error


def _url(scheme: str, host: str, port: int, rest: str) -> URL:
    if not 1 <= port <= 65535:
        raise _refused("its port is none")
    bracketed = f"[{host}]" if ":" in host else host
    try:
        url = URL(f"{scheme}://{bracketed}:{port}{rest}")
    except ValueError as error:
        raise _refused("it is no URL") from error
    if (url.scheme, url.raw_host, url.port) != (scheme, host, port):
        raise _refused("it can be read in more than one way")
    return url
