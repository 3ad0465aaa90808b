"""Settings of budget alerts, read once at start-up (prefix ``LOAM_``). Times in seconds."""

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from loam_gateway.adapters.smtp import MailServer
from loam_shared.contracts.admin import EmailAddress


class AlertSettings(BaseSettings):
    """How alerts are sent. Without `smtp_url` those by e-mail wait, and the Tenant's status says so."""

    model_config = SettingsConfigDict(env_prefix="LOAM_")

    smtp_url: str | None = Field(default=None, repr=False)
    """The mail server, as `smtps://user:password@host:465`, `smtp+starttls://…:587`, or `smtp://…:25` without TLS."""
    alerts_from: EmailAddress = "loam@localhost"
    """The sender's address of mails about budgets."""
    alerts_look_seconds: float = Field(default=1, gt=0)
    """How often one of the gateways looks for budgets that passed a percentage."""
    alerts_send_timeout: float = Field(default=10, gt=0)
    """How long sending one message may take; one whose sender died is taken up by another after twice as long."""
    alerts_retry_seconds: float = Field(default=5, gt=0)
    """The pause before the second attempt; each later one is twice as long, up to half an hour."""
    alerts_give_up_seconds: float = Field(default=24 * 3600, gt=0)
    """For how long an alert is tried to be sent."""

    @field_validator("smtp_url")
    @classmethod
    def _is_mail_server(cls, url: str | None) -> str | None:
        if url is not None:
            MailServer.at(url)
        return url

    @property
    def mail_server(self) -> MailServer | None:
        """The mail server, if there is one."""
        return None if self.smtp_url is None else MailServer.at(self.smtp_url)
