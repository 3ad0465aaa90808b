"""The guarded client against real servers on loopback, which only an exemption opens, and a resolver of the test's."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from pytest_socket import SocketConnectBlockedError

from loam_shared.egress import EgressClient, EgressFailedError, EgressRefusedError, Policy
from loam_shared.egress.pinning import admitted_socket, admitting
from loam_shared.egress.target import Target
from loam_shared.errors import DeadlineExceededError, InvalidRequestError

from ....services._servers.certificates import certificate_for

PUBLIC = "93.184.215.14"
BOTH = frozenset({"http", "https"})
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """A web server that notes what reaches it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0
        self.answers: dict[str, Answer] = {}
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.method, request.path_qs, headers, await request.read()))
        answer = self.answers.get(request.path)
        return await answer(request) if answer else web.Response(text="fine")

    def redirect(self, path: str, location: str, status: int = 302) -> None:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(status=status, headers={"location": location, "set-cookie": "a=b"})

        self.answers[path] = answer

    async def start(self, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, host, 0, ssl_context=context)
        await site.start()
        self.port = runner.addresses[0][1]
        return runner


class Names(AbstractResolver):
    """A DNS whose answers change: each question takes the next list of addresses, the last one stays."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(lists) for name, lists in answers.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.asked.append(host)
        lists = self.answers.get(host)
        if lists is None:
            raise OSError(f"no such host: {host}")
        addresses = lists.pop(0) if len(lists) > 1 else lists[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=0, proto=0, flags=0) for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    runner = await made.start()
    yield made
    await runner.cleanup()


@pytest_asyncio.fixture
async def other() -> AsyncIterator[Receiver]:
    made = Receiver()
    runner = await made.start()
    yield made
    await runner.cleanup()


def exempting(*targets: tuple[str, int], **more: Any) -> Policy:
    return Policy(exempt=frozenset(targets), **more)


async def test_an_exempt_service_is_reached_by_its_own_name(receiver: Receiver) -> None:
    names = Names(orders_shop_svc=[["127.0.0.1"]])
    async with EgressClient(exempting(("orders.shop.svc", receiver.port)), resolver=names) as client:
        answer = await client.request(
            "POST", f"http://Orders.shop.svc.:{receiver.port}/x?y=1", headers={"X-Key": "k"}, json={"a": 1}
        )
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"fine", "text/plain; charset=utf-8")
    [(method, path, headers, body)] = receiver.requests
    assert (method, path, body) == ("POST", "/x?y=1", b'{"a":1}')
    assert headers["host"] == f"orders.shop.svc:{receiver.port}"
    assert (headers["x-key"], headers["content-type"]) == ("k", "application/json")
    assert names.asked == ["orders.shop.svc"]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_loopback_is_refused_before_any_connection(receiver: Receiver, host: str) -> None:
    policy = Policy(schemes=BOTH, ports=frozenset({receiver.port}))
    async with EgressClient(policy) as client:
        with pytest.raises(EgressRefusedError):
            await client.request("GET", f"http://{host}:{receiver.port}/")
    assert receiver.requests == []


async def test_an_exemption_is_for_one_host_and_one_port(receiver: Receiver, other: Receiver) -> None:
    names = Names(a_svc=[["127.0.0.1"]], b_svc=[["127.0.0.1"]])
    policy = exempting(("a.svc", receiver.port), schemes=BOTH, ports=frozenset({443, other.port}))
    async with EgressClient(policy, resolver=names) as client:
        await client.request("GET", f"http://a.svc:{receiver.port}/")
        for refused in (f"http://a.svc:{other.port}/", f"http://b.svc:{receiver.port}/", f"http://b.svc:{other.port}/"):
            with pytest.raises(EgressRefusedError):
                await client.request("GET", refused)
    assert (len(receiver.requests), len(other.requests)) == (1, 0)


async def test_an_exempt_name_still_leads_to_no_metadata_service() -> None:
    names = Names(a_svc=[["169.254.169.254"], ["127.0.0.1", "fd00:ec2::254"], ["169.254.170.2"]])
    async with EgressClient(exempting(("a.svc", 80)), resolver=names) as client:
        for _ in range(3):
            with pytest.raises(EgressRefusedError):
                await client.request("GET", "http://a.svc/")


async def test_one_inward_address_among_public_ones_refuses_the_name(receiver: Receiver) -> None:
    names = Names(mixed_example=[[PUBLIC, "127.0.0.1"], ["127.0.0.1", PUBLIC]])
    policy = Policy(schemes=BOTH, ports=frozenset({receiver.port}))
    async with EgressClient(policy, resolver=names) as client:
        for _ in range(2):
            with pytest.raises(EgressRefusedError):
                await client.request("GET", f"http://mixed.example:{receiver.port}/")
    assert receiver.requests == []


@pytest.mark.filterwarnings("ignore:A test tried to use socket.socket.connect")
async def test_a_name_that_turns_inward_after_it_was_judged_gets_nowhere(receiver: Receiver) -> None:
    names = Names(rebinding_example=[[PUBLIC], ["127.0.0.1"]])
    policy = Policy(schemes=BOTH, ports=frozenset({receiver.port}))
    async with EgressClient(policy, resolver=names) as client:
        # Tests may not leave the machine; the guard that sees to that says where the connection was to go.
        with pytest.raises(SocketConnectBlockedError, match=PUBLIC):
            await client.request("GET", f"http://rebinding.example:{receiver.port}/")
        assert names.asked == ["rebinding.example"]
        with pytest.raises(EgressRefusedError):
            await client.request("GET", f"http://rebinding.example:{receiver.port}/")
    assert receiver.requests == []


async def test_a_refusal_does_not_say_what_a_name_resolves_to() -> None:
    names = Names(db_internal=[["10.20.30.40"]])
    async with EgressClient(Policy(), resolver=names) as client:
        with pytest.raises(EgressRefusedError) as refused:
            await client.request("GET", "https://db.internal/")
    told = f"{refused.value.message} {refused.value.details}"
    assert "10.20" not in told
    assert "private" not in told
    assert refused.value.rule == "not-public"


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{other}/",
        "//127.0.0.1:{other}/",
        "/\\127.0.0.1:{other}/",
        "http://2130706433:{other}/",
        "http://[::ffff:127.0.0.1]:{other}/",
        "http://inward.example:{other}/",
        "http://user@a.svc:{port}/",
        "file:///etc/passwd",
        "http:///",
    ],
)
async def test_a_redirect_is_judged_like_the_first_address(receiver: Receiver, other: Receiver, location: str) -> None:
    receiver.redirect("/start", location.format(other=other.port, port=receiver.port))
    names = Names(a_svc=[["127.0.0.1"]], inward_example=[["127.0.0.1"]])
    policy = exempting(("a.svc", receiver.port), schemes=BOTH, ports=frozenset({other.port}))
    async with EgressClient(policy, resolver=names) as client:
        with pytest.raises(EgressRefusedError):
            await client.request("GET", f"http://a.svc:{receiver.port}/start")
    assert other.requests == []


async def test_no_socket_is_made_for_an_address_that_nobody_judged() -> None:
    def info(host: str, port: int = 80) -> Any:
        return socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port)

    with admitting(Target.of("http://8.8.8.8/")):
        admitted_socket(info("8.8.8.8")).close()
        for unknown in (info("127.0.0.1"), info("8.8.8.8", 22)):
            with pytest.raises(EgressRefusedError):
                admitted_socket(unknown)
    with pytest.raises(EgressRefusedError):
        admitted_socket(info("8.8.8.8"))


async def test_a_redirect_to_another_origin_takes_no_credentials_along(receiver: Receiver, other: Receiver) -> None:
    receiver.redirect("/start", f"http://b.svc:{other.port}/end", 307)
    receiver.redirect("/here", "/end?x=1", 308)
    names = Names(a_svc=[["127.0.0.1"]], b_svc=[["127.0.0.1"]])
    policy = exempting(("a.svc", receiver.port), ("b.svc", other.port))
    headers = {"Authorization": "Bearer secret", "X-Api-Key": "secret", "Cookie": "secret=1"}
    async with EgressClient(policy, resolver=names) as client:
        await client.request("POST", f"http://a.svc:{receiver.port}/start", headers=headers, json={})
        await client.request("POST", f"http://a.svc:{receiver.port}/here", headers=headers, json={})
    [(method, _, there, body)] = other.requests
    assert (method, body, there["content-type"]) == ("POST", b"{}", "application/json")
    assert "secret" not in str(there)
    method, path, here, body = receiver.requests[-1]
    assert (method, path, body, here["authorization"]) == ("POST", "/end?x=1", b"{}", "Bearer secret")
    assert here["cookie"] == "secret=1", "cookies that a server sets are not kept"


async def test_a_redirect_of_a_post_becomes_a_get_without_its_body(receiver: Receiver) -> None:
    receiver.redirect("/start", "/end", 303)
    async with EgressClient(exempting(("127.0.0.1", receiver.port))) as client:
        await client.request("POST", f"http://127.0.0.1:{receiver.port}/start", json={"a": 1})
    method, path, headers, body = receiver.requests[-1]
    assert (method, path, body) == ("GET", "/end", b"")
    assert "content-type" not in headers


async def test_redirects_are_counted(receiver: Receiver) -> None:
    receiver.redirect("/round", "/round")
    async with EgressClient(exempting(("127.0.0.1", receiver.port), max_redirects=2)) as client:
        with pytest.raises(EgressFailedError, match="redirects more than 2 times"):
            await client.request("GET", f"http://127.0.0.1:{receiver.port}/round")
    assert len(receiver.requests) == 3


async def test_an_answer_has_a_limit_in_size_and_in_time(receiver: Receiver) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 4096)

    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    receiver.answers |= {"/endless": endless, "/silent": silent}
    policy = exempting(("127.0.0.1", receiver.port), max_response_bytes=10_000, timeout=0.3)
    async with EgressClient(policy) as client:
        with pytest.raises(EgressFailedError, match="larger than 10000 bytes"):
            await client.request("GET", f"http://127.0.0.1:{receiver.port}/endless")
        with pytest.raises(DeadlineExceededError):
            await client.request("GET", f"http://127.0.0.1:{receiver.port}/silent")


async def test_a_name_server_that_says_nothing_is_not_waited_for_longer_than_the_policy_allows() -> None:
    class Silent(Names):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
            await asyncio.Event().wait()
            raise AssertionError(host)

    async with EgressClient(Policy(timeout=0.1), resolver=Silent()) as client:
        with pytest.raises(DeadlineExceededError):
            await client.request("GET", "https://slow.example/")


async def test_an_exempt_address_of_version_6_is_reached_however_it_is_written() -> None:
    receiver = Receiver()
    try:
        runner = await receiver.start(host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    try:
        async with EgressClient(exempting(("::1", receiver.port))) as client:
            for host in ("[::1]", "[0:0::0:1]", "[0000::0001]"):
                assert (await client.request("GET", f"http://{host}:{receiver.port}/")).status == 200
    finally:
        await runner.cleanup()


async def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{receiver.port}")
    async with EgressClient(Policy(schemes=BOTH, ports=frozenset({9}))) as client:
        with pytest.raises(EgressRefusedError):
            await client.request("GET", "http://127.0.0.1:9/")
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("CONNECT", {}),
        ("GET /x", {}),
        ("GET", {"Host": "other"}),
        ("GET", {"Transfer-Encoding": "chunked"}),
        ("GET", {"X-A": "b\r\nX-C: d"}),
        ("GET", {"X A": "b"}),
    ],
)
async def test_what_would_change_the_meaning_of_a_request_is_refused(method: str, headers: dict[str, str]) -> None:
    async with EgressClient(exempting(("127.0.0.1", 9))) as client:
        with pytest.raises(InvalidRequestError):
            await client.request(method, "http://127.0.0.1:9/", headers=headers)


async def test_only_https_and_its_port_are_open_unless_the_policy_says_more() -> None:
    async with EgressClient(Policy(), resolver=Names()) as client:
        for url, rule in (("http://example.com/", "scheme"), ("https://example.com:22/", "port")):
            with pytest.raises(EgressRefusedError) as refused:
                await client.request("GET", url)
            assert refused.value.rule == rule


async def test_a_host_that_is_not_there_is_no_refusal() -> None:
    async with EgressClient(Policy(), resolver=Names()) as client:
        with pytest.raises(EgressFailedError, match="cannot be found"):
            await client.request("GET", "https://missing.example/")


async def test_tls_is_verified_against_the_name_and_not_the_address(tmp_path: Path, receiver: Receiver) -> None:
    server, authority = certificate_for("hooks.example", tmp_path)
    trusting = ssl.create_default_context(cafile=authority)
    shown: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: shown.append(name)
    secure = Receiver()
    runner = await secure.start(server)
    secure.redirect("/down", f"http://hooks.example:{receiver.port}/")
    names = Names(hooks_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    policy = exempting(
        *((f"{name}.example", port) for name in ("hooks", "other") for port in (secure.port, receiver.port))
    )
    try:
        async with EgressClient(policy, resolver=names, ssl_context=trusting) as client:
            answer = await client.request("GET", f"https://hooks.example:{secure.port}/")
            with pytest.raises(EgressFailedError, match="certificate"):
                await client.request("GET", f"https://other.example:{secure.port}/")
            with pytest.raises(EgressRefusedError) as refused:
                await client.request("GET", f"https://hooks.example:{secure.port}/down")
        async with EgressClient(policy, resolver=names) as client:
            with pytest.raises(EgressFailedError, match="certificate"):
                await client.request("GET", f"https://hooks.example:{secure.port}/")
    finally:
        await runner.cleanup()
    assert answer.body == b"fine"
    assert shown[:2] == ["hooks.example", "other.example"]
    assert refused.value.rule == "downgrade"
    assert receiver.requests == []
