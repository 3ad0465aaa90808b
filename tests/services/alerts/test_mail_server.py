"""Mails are handed in over TLS whose certificate is verified, by the name and password of the URL."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from loam_gateway.adapters.smtp import MailError, MailServer

from .._servers.certificates import certificate_for
from .._servers.embedded import HOST

USER, PASSWORD = "loam@platform.example", "p:s/s w%rd"
LOGIN = "loam%40platform.example:p%3As%2Fs%20w%25rd"


class Keeper:
    """Keeps recipients."""

    def __init__(self) -> None:
        self.recipients: list[str] = []

    async def handle_DATA(  # noqa: N802 - the name that aiosmtpd looks for
        self, _server: Any, _session: Session, envelope: Envelope
    ) -> str:
        self.recipients += envelope.rcpt_tos
        return "250 OK"


def check(_server: Any, _session: Session, _envelope: Envelope, _mechanism: str, given: Any) -> AuthResult:
    assert isinstance(given, LoginPassword)
    known = (given.login.decode(), given.password.decode()) == (USER, PASSWORD)
    return AuthResult(success=known, handled=known)


@contextlib.asynccontextmanager
async def serving(keeper: Keeper, at_once: ssl.SSLContext | None = None, **settings: Any) -> AsyncIterator[int]:
    """A mail server on a free port; `at_once` is for TLS from the start."""
    # aiosmtpd counts only STARTTLS as TLS, so it must not insist.
    made = partial(SMTP, keeper, authenticator=check, auth_require_tls=False, **settings)
    server = await asyncio.get_running_loop().create_server(made, HOST, 0, ssl=at_once)
    async with server:
        yield server.sockets[0].getsockname()[1]


def mail() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "loam@platform.example", "ops@acme.example", "s"
    message.set_content("text")
    return message


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    return certificate_for("localhost", tmp_path)


@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
async def test_a_mail_is_taken_from_who_knows_the_password(
    scheme: str, certified: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, authority = certified
    keeper = Keeper()
    how = {"at_once": context} if scheme == "smtps" else {"tls_context": context, "require_starttls": True}
    async with serving(keeper, **how) as port:
        with pytest.raises(MailError, match="no valid certificate"):
            await MailServer.at(f"{scheme}://{LOGIN}@localhost:{port}").send(mail())
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        with pytest.raises(MailError, match="answered 535"):
            await MailServer.at(f"{scheme}://{LOGIN}x@localhost:{port}").send(mail())
        assert keeper.recipients == []
        await MailServer.at(f"{scheme}://{LOGIN}@localhost:{port}").send(mail())
    assert keeper.recipients == ["ops@acme.example"]


async def test_no_password_is_sent_where_tls_was_asked_for_and_is_not_offered() -> None:
    keeper = Keeper()
    async with serving(keeper) as port:
        for scheme in ("smtps", "smtp+starttls"):
            with pytest.raises(MailError):
                await MailServer.at(f"{scheme}://{LOGIN}@localhost:{port}").send(mail())
    assert keeper.recipients == []
