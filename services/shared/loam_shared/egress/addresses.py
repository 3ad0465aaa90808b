"""Which IP addresses lie on the public internet. Everything else has a rule that refuses it, by name.

The tables are IANA's registries of special-purpose addresses with what clouds add to them. `ipaddress.is_global` alone
would not do: it lets through 6to4, NAT64, multicast, site-local addresses and clouds' public metadata addresses.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

INWARD = frozenset({"loopback", "private", "shared", "unique-local"})
"""Rules that an exemption lifts: where services of a cluster or a laptop live."""

# Instance metadata hands out credentials; some of these would pass, or be lifted, by the rules that follow.
_METADATA: tuple[IPv4Network | IPv6Network, ...] = (
    IPv4Network("169.254.169.254"),
    IPv4Network("168.63.129.16"),  # Azure's, a public address
    IPv4Network("100.100.100.200"),  # Alibaba's, in shared address space
    IPv4Network("192.0.0.192"),  # Oracle's
    IPv6Network("fd00:ec2::/32"),  # AWS's, in unique-local space, with those of ECS and EKS
    IPv6Network("fd20:ce::254"),  # Google's
)
# The first network that an address lies in gives the rule.
_V4 = {
    "unspecified": ("0.0.0.0/8",),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    "shared": ("100.64.0.0/10",),
    "loopback": ("127.0.0.0/8",),
    "link-local": ("169.254.0.0/16",),
    "reserved": ("192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24", "240.0.0.0/4"),
    "documentation": ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "233.252.0.0/24"),
    "6to4": ("192.88.99.0/24",),
    "benchmarking": ("198.18.0.0/15",),
    "multicast": ("224.0.0.0/4",),
}
_V6 = {
    "unspecified": ("::/128",),
    "loopback": ("::1/128",),
    "ipv4-embedded": ("::ffff:0:0/96", "::ffff:0:0:0/96", "::/96", "64:ff9b:1::/48"),
    "6to4": ("2002::/16",),
    "teredo": ("2001::/32",),
    "benchmarking": ("2001:2::/48",),
    "documentation": ("2001:db8::/32", "3fff::/20"),
    "reserved": ("2001::/23", "2620:4f:8000::/48", "100::/64", "100:0:0:1::/64", "5f00::/16"),
    "unique-local": ("fc00::/7",),
    "link-local": ("fe80::/10",),
    "site-local": ("fec0::/10",),
    "multicast": ("ff00::/8",),
}
_V4_RULES = [(IPv4Network(network), rule) for rule, networks in _V4.items() for network in networks]
_V6_RULES = [(IPv6Network(network), rule) for rule, networks in _V6.items() for network in networks]
_BROADCAST = IPv4Address("255.255.255.255")
_NAT64 = IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})


def refusing_rule(address: IPv4Address | IPv6Address) -> str | None:
    """Name of the rule that refuses `address`; None for one of the public internet."""
    if any(address in network for network in _METADATA):
        return "metadata"
    rule = _v4_rule(address) if isinstance(address, IPv4Address) else _v6_rule(address)
    if rule is None and not address.is_global:
        # Whatever later registries add.
        return "reserved"
    return rule


def _v4_rule(address: IPv4Address) -> str | None:
    if address == _BROADCAST:
        return "broadcast"
    return next((rule for network, rule in _V4_RULES if address in network), None)


def _v6_rule(address: IPv6Address) -> str | None:
    if address.scope_id is not None:
        return "link-local"
    rule = next((rule for network, rule in _V6_RULES if address in network), None)
    if rule is not None:
        return rule
    inner = _inner(address)
    if inner is not None:
        return refusing_rule(inner)
    return None if address in _GLOBAL_UNICAST else "reserved"


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a translator (NAT64, as DNS64 answers) or an ISATAP router would take out of `address`."""
    if address in _NAT64 or (address in _GLOBAL_UNICAST and (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None
