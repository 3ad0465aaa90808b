"""What a caller of the egress guard permits, and how it says no."""

from dataclasses import dataclass

from loam_shared.errors import InvalidRequestError


class EgressRefusedError(InvalidRequestError):
    """The guard does not go there. Details: rule, its name.

    Neither message nor details say what a name resolved to: that would tell a tenant about the platform's network.
    """

    code = "egress_refused"

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message, rule=rule)
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Policy:
    """Where a client may go, and how much it takes from there.

    `schemes` and `ports` hold for addresses of the public internet. A (host, port) in `exempt`, the host in lower case
    and without a trailing dot, may also be private or loopback and may be spoken to by http; metadata services and
    everything else that is special stays refused. `timeout` is in seconds, for resolving, connecting, all redirects
    and the whole answer together.
    """

    schemes: frozenset[str] = frozenset({"https"})
    ports: frozenset[int] = frozenset({443})
    exempt: frozenset[tuple[str, int]] = frozenset()
    max_redirects: int = 3
    max_response_bytes: int = 2**20
    timeout: float = 10
