"""Where alerts arrive: a real web server and a real mail server on loopback."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from .._servers.embedded import HOST, free_ports


@dataclass
class Webhook:
    """A web server that takes what a Slack webhook takes. `status` is what it answers; `release` lets it answer."""

    port: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    posts: list[dict[str, Any]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/services/T0/B0/secret"

    @property
    def service(self) -> dict[str, Any]:
        return {"host": HOST, "ports": [self.port]}

    @property
    def texts(self) -> list[str]:
        return [post["body"]["text"] for post in self.posts]

    @property
    def ids(self) -> list[str]:
        return [post["id"] for post in self.posts]


@contextlib.contextmanager
def webhook() -> Iterator[Webhook]:
    made = Webhook()
    made.release.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            made.posts.append({"path": self.path, "id": self.headers["idempotency-key"], "body": body})
            made.release.wait()
            with contextlib.suppress(ConnectionError):
                self.send_response(made.status)
                for name, value in (made.headers | {"content-length": "0"}).items():
                    self.send_header(name, value)
                self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            """Tests look at `posts`."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield made
        finally:
            made.release.set()
            server.shutdown()
            thread.join()


@dataclass
class Mailbox:
    """A mail server that keeps what it gets. It refuses `unknown` recipients."""

    port: int = 0
    mails: list[tuple[str, EmailMessage]] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"smtp://{HOST}:{self.port}"

    def of(self, recipient: str) -> list[EmailMessage]:
        return [mail for to, mail in self.mails if to == recipient]

    async def handle_RCPT(  # noqa: N802 - the name that aiosmtpd looks for
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _: Any
    ) -> str:
        if address in self.unknown:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 - as above
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails += [(recipient, mail) for recipient in envelope.rcpt_tos]
        return "250 OK"


@contextlib.contextmanager
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox()
    [made.port] = free_ports(1)
    controller = Controller(made, hostname=HOST, port=made.port)
    controller.start()
    try:
        yield made
    finally:
        controller.stop()
