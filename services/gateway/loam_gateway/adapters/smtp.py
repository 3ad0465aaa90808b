"""The platform's mail server."""

import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Self
from urllib.parse import unquote, urlsplit

import aiosmtplib

_PORTS = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}


class MailError(Exception):
    """The mail was not taken. `rejected` when the server said no to it, and would again."""

    def __init__(self, message: str, *, rejected: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.rejected = rejected


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mails are handed in, and as whom."""

    host: str
    port: int
    scheme: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def at(cls, url: str) -> Self:
        """Raises ValueError, which does not show the password, when `url` is none of a mail server."""
        wanted = "write it as smtps://user:password@host:port, or with smtp+starttls:// or smtp://"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(f"no address of a mail server; {wanted}") from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"no address of a mail server; {wanted}")
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        return cls(parts.hostname, port or _PORTS[parts.scheme], parts.scheme, username, password)

    async def send(self, mail: EmailMessage) -> None:
        """Hand in `mail` for its one recipient. Raises MailError."""
        try:
            await aiosmtplib.send(
                mail,
                hostname=self.host,
                port=self.port,
                username=self.username,
                password=self.password,
                use_tls=self.scheme == "smtps",
                start_tls=self.scheme == "smtp+starttls",
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = {refusal.code for refusal in error.recipients}
            raise MailError("the mail server refuses the address", rejected=min(codes) >= 500) from error
        except aiosmtplib.SMTPResponseException as error:
            # What a server says may quote anything; the code alone is passed on.
            raise MailError(f"the mail server answered {error.code}") from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise MailError(_told(error)) from error


def _told(error: BaseException | None) -> str:
    """A sentence for a connection that came to nothing."""
    if error is None:
        return "the mail server does not answer"
    if isinstance(error, ssl.SSLError):
        return "the mail server has no valid certificate, or speaks no TLS"
    return _told(error.__cause__)
