"""Which addresses a tenant's URL may lead to: those of the public internet, however they are written."""

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loam_shared.egress import EgressRefusedError, Policy
from loam_shared.egress.addresses import refusing_rule
from loam_shared.egress.pinning import check
from loam_shared.egress.target import Target

ANYTHING = Policy(schemes=frozenset({"http", "https"}), ports=frozenset(range(1, 65536)))

# One URL per notation, and the rule that must say no.
REFUSED = {
    "http://127.0.0.1/": "loopback",
    "http://127.0.0.1./": "loopback",
    "http://127.255.255.254:8080/x?y#z": "loopback",
    "HTTP://127.0.0.1/": "loopback",
    "http://127.1/": "notation",
    "http://127.0.1/": "notation",
    "http://2130706433/": "notation",
    "http://02130706433/": "notation",
    "http://0x7f000001/": "notation",
    "http://0X7F.0x0.0x0.0x1/": "notation",
    "http://0177.0.0.1/": "notation",
    "http://017700000001/": "notation",
    "http://0x7f.1/": "notation",
    "http://127.0.0.01/": "notation",
    "http://0/": "notation",
    "http://0x/": "notation",
    "http://1.1.1.1.1/": "notation",
    "http://256.256.256.256/": "notation",
    "http://99999999999/": "notation",
    "http://a.127/": "notation",
    "http://127.0.0.0x1/": "notation",
    "http://127\u30020\u30020\u30021/": "loopback",
    "http://\uff11\uff12\uff17.0.0.1/": "loopback",
    "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/": "loopback",
    "http://127\uff0e0\uff0e0\uff0e1/": "loopback",
    "http://\u0660x7f.1/": "url",
    "http://%31%32%37.0.0.1/": "url",
    "http://127.0.0.1%00.example.com/": "url",
    "http://127.0.0.1%2f@example.com/": "url",
    "http://user@127.0.0.1/": "url",
    "http://user:password@example.com/": "url",
    "http://example.com@127.0.0.1/": "url",
    "http://127.0.0.1\\@example.com/": "url",
    "http://example.com\\@127.0.0.1/": "url",
    "http:\\\\127.0.0.1/": "url",
    "http:/127.0.0.1/": "url",
    "http:127.0.0.1/": "url",
    "//127.0.0.1/": "url",
    "http:///127.0.0.1/": "url",
    " http://127.0.0.1/": "url",
    "http://127.0.0.1 /": "url",
    "ht\ntp://127.0.0.1/": "url",
    "http://127.0\t.0.1/": "url",
    "http://exam\u00adple.com/": "url",
    "http://127.0.0.1:/": "url",
    "http://127.0.0.1:0/": "url",
    "http://127.0.0.1:65536/": "url",
    "http://127.0.0.1:\uff180/": "url",
    "http://127.0.0.1:80:80/": "url",
    "http://a..b/": "url",
    "http://./": "url",
    "http://-a.example/": "url",
    "http://" + "a" * 64 + ".example/": "url",
    "http://" + "a." * 130 + "example/": "url",
    "http://example.com/" + "a" * 2048: "url",
    "http://[::1]/": "loopback",
    "http://[0:0:0:0:0:0:0:1]/": "loopback",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]/": "loopback",
    "http://[::]/": "unspecified",
    "http://[::ffff:127.0.0.1]/": "ipv4-embedded",
    "http://[::ffff:7f00:1]/": "ipv4-embedded",
    "http://[::FFFF:7F00:0001]/": "ipv4-embedded",
    "http://[::ffff:0:127.0.0.1]/": "ipv4-embedded",
    "http://[::ffff:8.8.8.8]/": "ipv4-embedded",
    "http://[::127.0.0.1]/": "ipv4-embedded",
    "http://[64:ff9b::127.0.0.1]/": "loopback",
    "http://[64:ff9b::a9fe:a9fe]/": "metadata",
    "http://[64:ff9b::10.0.0.1]/": "private",
    "http://[64:ff9b:1::8.8.8.8]/": "ipv4-embedded",
    "http://[2002:7f00:1::]/": "6to4",
    "http://[2001:0:7f00:1::]/": "teredo",
    "http://[2606:4700::5efe:10.0.0.1]/": "private",
    "http://[2606:4700::200:5efe:a00:1]/": "private",
    "http://[fe80::1]/": "link-local",
    "http://[fe80::1%25eth0]/": "url",
    "http://[fe80::1%eth0]/": "url",
    "http://[fd00:ec2::254]/": "metadata",
    "http://[fd00:ec2::23]/": "metadata",
    "http://[fd12:3456::1]/": "unique-local",
    "http://[fec0::1]/": "site-local",
    "http://[ff02::1]/": "multicast",
    "http://[ff0e::1]/": "multicast",
    "http://[2001:db8::1]/": "documentation",
    "http://[3fff::1]/": "documentation",
    "http://[4000::1]/": "reserved",
    "http://[v1.127.0.0.1]/": "url",
    "http://[127.0.0.1]/": "url",
    "http://[::1/": "url",
    "http://[::1]]/": "url",
    "http://[::1]x/": "url",
    "http://169.254.169.254/latest/meta-data/": "metadata",
    "http://169.254.170.2/": "link-local",
    "http://168.63.129.16/": "metadata",
    "http://100.100.100.200/": "metadata",
    "http://192.0.0.192/": "metadata",
    "http://10.0.0.1/": "private",
    "http://172.31.255.255/": "private",
    "http://192.168.1.1/": "private",
    "http://100.64.0.1/": "shared",
    "http://0.0.0.0/": "unspecified",
    "http://224.0.0.1/": "multicast",
    "http://255.255.255.255/": "broadcast",
    "http://240.0.0.1/": "reserved",
    "http://192.0.2.1/": "documentation",
    "http://198.51.100.1/": "documentation",
    "http://203.0.113.1/": "documentation",
    "http://198.18.0.1/": "benchmarking",
    "http://192.88.99.1/": "6to4",
    "ftp://example.com/": "url",
    "file:///etc/passwd": "url",
    "gopher://127.0.0.1:6379/_": "url",
    "javascript:alert(1)": "url",
    "": "url",
    "http://": "url",
    "https://example.com:443@127.0.0.1/": "url",
}
TAKEN = {
    "https://example.com": ("example.com", 443, "/"),
    "https://EXAMPLE.com./a/../b?q=1#f": ("example.com", 443, "/b"),
    "http://example.com:8080/x": ("example.com", 8080, "/x"),
    "https://m\u00fcnchen.example/": ("xn--mnchen-3ya.example", 443, "/"),
    "https://8.8.8.8/": ("8.8.8.8", 443, "/"),
    "https://[2606:4700::1111]:8443/": ("2606:4700::1111", 8443, "/"),
    "https://[64:ff9b::8.8.8.8]/": ("64:ff9b::808:808", 443, "/"),
    "https://10.example.com/": ("10.example.com", 443, "/"),
    "https://example.com/user@host\u00fc": ("example.com", 443, "/user@host\u00fc"),
    "https://example.com#@127.0.0.1:80@x/": ("example.com", 443, "/"),
}


@pytest.mark.parametrize(("url", "rule"), REFUSED.items())
def test_an_address_that_is_not_public_is_refused_in_every_notation(url: str, rule: str) -> None:
    with pytest.raises(EgressRefusedError) as refused:
        check(Target.of(url), ANYTHING)
    assert refused.value.rule == rule


@pytest.mark.parametrize(("url", "expected"), TAKEN.items())
def test_a_plain_url_has_one_form(url: str, expected: tuple[str, int, str]) -> None:
    target = Target.of(url)
    check(target, ANYTHING)
    assert (target.host, target.port, target.url.path) == expected
    assert Target.of(str(target.url)) == target


SPECIAL = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32"),
    *("::/128", "::1/128", "::/96", "::ffff:0:0/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:2::/48"),
    *("2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    *("4000::/3", "8000::/2"),
]


@pytest.mark.parametrize("text", SPECIAL)
def test_a_special_range_is_refused_from_its_first_address_to_its_last(text: str) -> None:
    network = IPv6Network(text) if ":" in text else IPv4Network(text)
    for address in (network[0], network[-1], network[network.num_addresses // 2]):
        assert refusing_rule(address), address


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6), st.integers(0, 2**32 - 1).map(IPv4Address))


@given(ADDRESSES)
def test_nothing_is_let_through_that_the_standard_library_holds_for_special(address: IPv4Address | IPv6Address) -> None:
    if not refusing_rule(address):
        assert address.is_global
        assert not any((address.is_multicast, address.is_loopback, address.is_link_local, address.is_unspecified))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_an_ipv6_address_gets_no_further_than_by_itself(inner: IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "::ffff:0:0:0", "::", "64:ff9b::", "64:ff9b:1::", "2606:4700::5efe:0:0"):
        outer = IPv6Address(int(ip_address(prefix)) + int(inner))
        assert refusing_rule(outer) in {"ipv4-embedded", "loopback", "unspecified", refusing_rule(inner)}
        assert refusing_rule(outer) or not refusing_rule(inner)


WRITTEN = (str, hex, lambda number: f"0{number:o}", lambda number: f"0x{number:08X}", lambda number: f"00{number:o}")


@given(st.ip_addresses(v=4), st.integers(1, 4), st.lists(st.sampled_from(WRITTEN), min_size=4, max_size=4))
def test_every_notation_that_a_resolver_would_read_is_refused_unless_it_is_the_plain_one(
    address: IPv4Address, parts: int, written: list[Callable[[int], str]]
) -> None:
    number = int(address)
    leading = [(number >> shift) & 0xFF for shift in (24, 16, 8)][: parts - 1]
    last = number & ((1 << (8 * (5 - parts))) - 1)
    text = ".".join(write(part) for write, part in zip(written, [*leading, last], strict=False))
    assert socket.inet_aton(text) == address.packed
    if text == str(address):
        assert Target.of(f"http://{text}/").address == address
    else:
        with pytest.raises(EgressRefusedError):
            Target.of(f"http://{text}/")


@given(st.from_regex(r"[0-9a-fA-FxX.]{1,24}", fullmatch=True))
def test_no_name_that_is_taken_is_an_address_to_the_system(text: str) -> None:
    try:
        target = Target.of(f"http://{text}/")
    except EgressRefusedError:
        return
    if target.address is None:
        with pytest.raises(OSError, match="illegal IP address"):
            socket.inet_aton(target.host)


@given(st.ip_addresses(network="8.0.0.0/8") | st.ip_addresses(network="1.1.0.0/16"))
def test_addresses_of_the_public_internet_are_let_through(address: IPv4Address) -> None:
    assert refusing_rule(address) is None
    assert refusing_rule(IPv6Address("64:ff9b::" + str(address))) is None
    assert refusing_rule(IPv6Address(int(ip_address("2600:1f00::")) + int(address))) is None


@given(st.text(max_size=40))
def test_any_text_is_either_one_plain_target_or_refused(text: str) -> None:
    for url in (text, f"http://{text}/", f"https://{text}"):
        try:
            target = Target.of(url)
        except EgressRefusedError:
            continue
        assert target.url.raw_host == target.host
        assert target.url.user is None
        assert Target.of(str(target.url)) == target
