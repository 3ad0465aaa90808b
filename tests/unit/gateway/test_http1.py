"""The gateway's own HTTP client against servers that say exactly what a test wants, byte for byte."""

import asyncio
import contextlib

import pytest
import uvloop

from loam_gateway.adapters import http1_connection
from loam_gateway.adapters.http1 import Http1, Url
from loam_gateway.adapters.http1_connection import BrokenOffError, ConnectError, SilenceError

from ...services._servers.certificates import certificate_for

BODY = b'{"output": "hello"}'
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Amzn-RequestId: r-1\r\nX-Empty:\r\n\r\n%s" % (len(BODY), BODY)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n%s\r\nb;x=y\r\n%s\r\n0\r\n\r\n" % (
    BODY[:8],
    BODY[8:],
)
TRAILED = CHUNKED[:-2] + b"x-amzn-requestid: trailer\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n" + BODY
INTERIM = b"HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + WHOLE
FRAMINGS = {"length": WHOLE, "chunked": CHUNKED, "trailers": TRAILED, "until close": UNTIL_CLOSE, "interim": INTERIM}


class Server:
    """Answers each request with what `say` does on the connection; it ends the connection when `say` returns False."""

    def __init__(self, say):
        self.say = say
        self.requests: list[bytes] = []
        self.connections = 0
        self.handlers: list[asyncio.Task] = []
        self.reset = False
        self.gone = asyncio.Event()
        self.url = Url.parse("http://127.0.0.1:1/")

    async def handle(self, reader, writer):
        self.connections += 1
        self.handlers.append(asyncio.current_task())
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self.answer(reader, writer) is not False:
                    pass
        finally:
            self.gone.set()
            writer.transport.abort() if self.reset else writer.close()

    async def answer(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.requests.append(head + await reader.readexactly(length))
        return await self.say(reader, writer)


@contextlib.asynccontextmanager
async def serving(say, tls=None, host="127.0.0.1"):
    server = Server(say)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    server.url = Url.parse(f"{'https' if tls else 'http'}://{host}:{port}/model/a%3Ab/converse")
    try:
        yield server
    finally:
        listening.close()
        for handler in server.handlers:
            handler.cancel()
        await asyncio.gather(*server.handlers, return_exceptions=True)
        # Transports say good-bye in the loop's next turns.
        await asyncio.sleep(0.001)


def saying(*pieces, then=True):
    """Each piece in a segment of its own."""

    async def say(_reader, writer):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        return then

    return say


async def until(condition):
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came about")


@pytest.fixture
async def http():
    async with Http1.open(connect_timeout=5, read_timeout=5) as opened:
        yield opened


async def post(http, url, body=b"{}", headers=None):
    async with http.post(url, headers or {"Accept": "application/json"}, body) as response:
        return response.status, response.headers, await response.read()


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_an_answer_is_whole_wherever_the_network_splits_it(http, framing):
    said = FRAMINGS[framing]
    for at in range(1, len(said)):
        async with serving(saying(said[:at], said[at:], then=framing != "until close")) as server:
            status, headers, body = await post(http, server.url)
            assert (status, body) == (200, BODY), at
            assert headers.get("x-early") is None
            assert headers.get("x-amzn-requestid") in {None, "r-1"}, "trailers are no headers"


async def test_an_answer_may_come_byte_by_byte(http):
    for said in FRAMINGS.values():
        async with serving(saying(*[bytes([byte]) for byte in said], then=said is not UNTIL_CLOSE)) as server:
            assert (await post(http, server.url))[2] == BODY


async def test_headers_are_found_in_any_case(http):
    async with serving(saying(WHOLE)) as server:
        _, headers, _ = await post(http, server.url)
    assert headers.get("X-AMZN-requestid") == "r-1"
    assert headers.get("x-empty") == ""
    assert headers.get("x-other") is None


async def test_what_is_sent_is_one_plain_request(http):
    async with serving(saying(WHOLE)) as server:
        await post(http, server.url, b"\x00body", {"Content-Type": "application/json", "X-Name": "grüße"})
    host = server.url.authority.encode()
    assert server.requests == [
        b"POST /model/a%3Ab/converse HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 5\r\n"
        b"Content-Type: application/json\r\nX-Name: " + "grüße".encode() + b"\r\n\r\n\x00body"
    ]


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\r", "\n"])
async def test_a_header_with_a_line_break_is_never_sent(http, value):
    async with serving(saying(WHOLE)) as server:
        with pytest.raises(ValueError, match="line break"):
            await post(http, server.url, headers={"Authorization": value})
        with pytest.raises(ValueError, match="line break"):
            await post(http, server.url, headers={value: "x"})
    assert server.connections == 0


@pytest.mark.parametrize("url", ["http://host/a b", "http://host/a\r\nb", "ftp://host/", "/path", "http://ho st/"])
def test_what_cannot_be_a_target_is_no_url(url):
    with pytest.raises(ValueError, match=r"URL|url|host"):
        Url.parse(url)


@pytest.mark.parametrize(
    ("url", "authority", "host", "port"),
    [
        ("https://bedrock.example/x", "bedrock.example", "bedrock.example", 443),
        ("https://bedrock.example:443/x", "bedrock.example", "bedrock.example", 443),
        ("http://bedrock.example:4566/x", "bedrock.example:4566", "bedrock.example", 4566),
        ("http://[::1]:4566/x", "[::1]:4566", "::1", 4566),
    ],
)
def test_the_host_header_names_a_port_that_is_not_the_usual_one(url, authority, host, port):
    parsed = Url.parse(url)
    assert (parsed.authority, parsed.origin.host, parsed.origin.port) == (authority, host, port)


async def test_calls_one_after_another_share_a_connection(http):
    async with serving(saying(WHOLE)) as server:
        for _ in range(5):
            await post(http, server.url)
        assert server.connections == 1
        await asyncio.gather(*[post(http, server.url) for _ in range(3)])
        assert server.connections == 3


async def test_a_body_that_nobody_read_costs_its_connection(http):
    async with serving(saying(WHOLE)) as server:
        async with http.post(server.url, {}, b"") as response:
            assert response.status == 200
        await post(http, server.url)
        assert server.connections == 2


@pytest.mark.parametrize(
    "said",
    [
        WHOLE.replace(b"X-Empty:", b"Connection: close"),
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        WHOLE + b"H",
        WHOLE + WHOLE,
        WHOLE + b"\x00\x01",
        CHUNKED + b"0\r\n\r\n",
    ],
    ids=["close", "HTTP/1.0", "a byte more", "an answer more", "rubbish more", "a chunk more"],
)
async def test_a_connection_with_more_on_it_or_about_to_close_is_not_used_again(http, said):
    async with serving(saying(said)) as server:
        assert (await post(http, server.url))[2] == BODY
        assert (await post(http, server.url))[2] == BODY
        assert server.connections == 2


async def test_what_comes_between_two_calls_ends_the_connection(http):
    async with serving(saying(WHOLE)) as server:
        sent = asyncio.Event()

        async def late(_reader, writer):
            writer.write(WHOLE)
            await writer.drain()
            await sent.wait()
            writer.write(WHOLE.replace(b"hello", b"wrong"))

        server.say = late
        await post(http, server.url)
        sent.set()
        await server.gone.wait()
        server.say = saying(WHOLE)
        assert (await post(http, server.url))[2] == BODY
        assert server.connections == 2


async def test_a_connection_that_the_server_closed_while_idle_is_not_used_again(http):
    async with serving(saying(WHOLE, then=False)) as server:
        for _ in range(3):
            assert (await post(http, server.url))[2] == BODY
            await until(lambda: not http._connections)
        assert server.connections == 3
    assert not any(http._idle.values())


async def test_an_idle_connection_is_closed_in_time(http, monkeypatch):
    monkeypatch.setattr(http1_connection, "_IDLE_SECONDS", 0.05)
    async with serving(saying(WHOLE)) as server:
        await post(http, server.url)
        await asyncio.wait_for(server.gone.wait(), 5)
    assert not any(http._idle.values())


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", WHOLE[:-1], CHUNKED[:-2]], ids=len)
async def test_silence_is_told_from_a_lost_connection(said):
    async def silent(reader, writer):
        writer.write(said)
        await reader.read()

    async with serving(silent) as server, Http1.open(connect_timeout=5, read_timeout=0.1) as http:
        with pytest.raises(SilenceError):
            await post(http, server.url)
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_who_keeps_talking_is_not_silent():
    async def slow(_reader, writer):
        for byte in CHUNKED[:60]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        writer.write(CHUNKED[60:])

    async with serving(slow) as server, Http1.open(connect_timeout=5, read_timeout=0.3) as http:
        assert (await post(http, server.url))[2] == BODY
        assert (await post(http, server.url))[2] == BODY
        assert server.connections == 1


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("said", [b"", WHOLE[:20], WHOLE[:-1], CHUNKED[:60], CHUNKED[:-2]], ids=len)
async def test_an_answer_that_is_cut_is_broken_off(http, said, reset):
    async def cut(_reader, writer):
        writer.write(said)
        return False

    async with serving(cut) as server:
        server.reset = reset
        with pytest.raises(BrokenOffError):
            await post(http, server.url)


async def test_what_came_before_a_cut_is_still_given(http):
    async with serving(saying(CHUNKED[:60], then=False)) as server, http.post(server.url, {}, b"") as response:
        chunks = response.chunks()
        assert await anext(chunks) == BODY[:8]
        with pytest.raises(BrokenOffError):
            await anext(chunks)


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
        CHUNKED[:-2] + b"x: " + b"x" * 200_000,
    ],
    ids=["ssh", "lengths", "both", "chunk", "coding", "upgrade", "head", "interim", "trailers"],
)
async def test_what_is_no_answer_is_broken_off(http, said):
    # All but one are told from an answer without the connection's end.
    async with serving(saying(said, then=b"gzip" not in said)) as server:
        with pytest.raises(BrokenOffError):
            await post(http, server.url)


async def test_a_whole_answer_has_a_limit(http, monkeypatch):
    monkeypatch.setattr(http1_connection, "_BODY_BYTES", 10_000)
    async with serving(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + b"x" * 20_000)) as server:
        with pytest.raises(BrokenOffError, match="too long"):
            await post(http, server.url)


async def test_answers_without_a_body_end_with_their_head(http):
    async with serving(saying(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        assert (await post(http, server.url))[2] == b""
        assert (await post(http, server.url))[0] == 204
        assert server.connections == 1


async def test_a_port_where_nobody_listens_is_unreachable(http):
    async with serving(saying(WHOLE)) as server:
        pass
    with pytest.raises(ConnectError):
        await post(http, server.url)


async def test_a_host_without_an_address_is_unreachable(http):
    with pytest.raises(ConnectError):
        await post(http, Url.parse("http://nobody.invalid/"))


async def test_a_connection_that_does_not_come_in_time_is_unreachable():
    async def mute(reader, _writer):
        await reader.read()

    async with serving(mute) as server, Http1.open(connect_timeout=0.1, read_timeout=5) as http:
        with pytest.raises(ConnectError, match="time"):
            await post(http, server.url._replace(origin=server.url.origin._replace(tls=True)))


async def test_tls_needs_a_certificate_of_the_hosts_name(tmp_path, monkeypatch):
    context, authority = certificate_for("localhost", tmp_path)
    names = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    async with serving(saying(CHUNKED), context, "localhost") as server:
        async with Http1.open(connect_timeout=5, read_timeout=5) as http:
            with pytest.raises(ConnectError, match="certificate"):
                await post(http, server.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        names.clear()
        async with Http1.open(connect_timeout=5, read_timeout=5) as http:
            assert (await post(http, server.url))[2] == BODY
            assert (await post(http, server.url))[2] == BODY
            assert names == ["localhost"]
            other = server.url._replace(origin=server.url.origin._replace(host="127.0.0.1"))
            with pytest.raises(ConnectError, match="certificate"):
                await post(http, other)


async def test_a_call_that_is_cancelled_closes_its_connection(http):
    asked = asyncio.Event()

    async def silent(reader, _writer):
        asked.set()
        await reader.read()
        return False

    async with serving(silent) as server:
        call = asyncio.create_task(post(http, server.url))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(server.gone.wait(), 5)
    assert not http._connections
    assert not any(http._idle.values())


async def endless(_reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        await writer.drain()


async def test_closing_a_stream_half_way_tells_the_server_at_once(http):
    async with serving(endless) as server, http.post(server.url, {}, b"") as response:
        async for data in response.chunks():
            assert data.strip(b"x") == b""
            response.close()
            break
        await asyncio.wait_for(server.gone.wait(), 5)
        with pytest.raises(BrokenOffError):
            async for _data in response.chunks():
                pass


async def test_closing_a_stream_that_has_ended_keeps_its_connection(http):
    async with serving(saying(CHUNKED)) as server:
        for _ in range(2):
            async with http.post(server.url, {}, b"") as response:
                assert b"".join([data async for data in response.chunks()]) == BODY
                response.close()
        assert server.connections == 1


@pytest.mark.parametrize("runner", [asyncio.Runner, lambda: asyncio.Runner(loop_factory=uvloop.new_event_loop)])
def test_a_slow_reader_makes_the_server_wait_and_loses_nothing(runner):
    total = 8 * 2**20

    async def say(_reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        for _ in range(total // 2**16):
            writer.write(b"x" * 2**16)
            await writer.drain()

    async def scene():
        async with serving(say) as server, Http1.open(connect_timeout=5, read_timeout=0.2) as http:
            for _ in range(2):
                async with http.post(server.url, {}, b"") as response:
                    # Longer than silence may be: it is not the server who is silent.
                    await asyncio.sleep(0.3)
                    assert 0 < response.unread < 2**20
                    got = 0
                    async for data in response.chunks():
                        assert len(data) < 2**20
                        got += len(data)
                    assert got == total
            assert server.connections == 1

    with runner() as run:
        run.run(scene())


async def test_closing_the_client_ends_what_is_under_way():
    async with serving(endless) as server:
        async with contextlib.AsyncExitStack() as stack:
            async with Http1.open(connect_timeout=5, read_timeout=5) as http:
                response = await stack.enter_async_context(http.post(server.url, {}, b""))
            with pytest.raises(BrokenOffError):
                async for _data in response.chunks():
                    pass
        await asyncio.wait_for(server.gone.wait(), 5)
