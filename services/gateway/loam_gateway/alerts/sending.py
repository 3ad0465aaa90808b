"""One attempt to send one message."""

import asyncio
from http import HTTPStatus

from loam_gateway.adapters.smtp import MailError
from loam_gateway.alerts import messages
from loam_gateway.alerts.model import Channel, Delivery, DeliveryError
from loam_gateway.alerts.outbox import NO_MAIL, NOT_WANTED
from loam_gateway.alerts.settings import AlertSettings
from loam_gateway.directory import secrets
from loam_gateway.vault import Vault, VaultError
from loam_shared.egress import EgressClient, EgressRefusedError, EgressResponse, Policy
from loam_shared.errors import LoamError

_ASKS_TO_WAIT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_MAX_ANSWER_BYTES = 64 * 2**10


class Sender:
    """Knows how to reach people, and says in one way why it could not."""

    def __init__(self, vault: Vault, settings: AlertSettings) -> None:
        self._vault, self._settings = vault, settings
        self._mail_server = settings.mail_server

    async def send(self, delivery: Delivery) -> None:
        """Returns once the other side has taken the message. Raises DeliveryError."""
        if not delivery.wanted:
            raise DeliveryError(NOT_WANTED, "the target was taken away before the message was sent", final=True)
        try:
            async with asyncio.timeout(self._settings.alerts_send_timeout):
                if delivery.channel is Channel.SLACK:
                    await self._post(delivery)
                else:
                    await self._mail(delivery)
        except TimeoutError as error:
            what = "Webhook" if delivery.channel is Channel.SLACK else "MailServer"
            raise DeliveryError(f"{what}Unreachable", "it took too long to send an alert") from error

    async def _mail(self, delivery: Delivery) -> None:
        if self._mail_server is None:
            raise DeliveryError(*NO_MAIL, persistent=True)
        mail = messages.mail(delivery, self._settings.alerts_from)
        try:
            await self._mail_server.send(mail)
        except MailError as error:
            whom = f"a mail to {delivery.recipient} was not sent: {error.message}"
            reason = "MailRejected" if error.rejected else "MailServerUnreachable"
            raise DeliveryError(reason, whom, final=error.rejected) from error

    async def _post(self, delivery: Delivery) -> None:
        policy = Policy(
            exempt=delivery.services,
            timeout=self._settings.alerts_send_timeout,
            max_response_bytes=_MAX_ANSWER_BYTES,
        )
        headers = {"idempotency-key": str(delivery.id)}
        try:
            # A connection is not kept for the next tenant: it may not go where this one may.
            async with EgressClient(policy) as client:
                url = self._webhook(delivery)
                answer = await client.request("POST", url, headers=headers, json=messages.slack(delivery))
        except EgressRefusedError as error:
            raise DeliveryError("WebhookRefused", f"the webhook: {error.message}", persistent=True) from error
        except LoamError as error:
            raise DeliveryError("WebhookUnreachable", f"the webhook: {error.message}") from error
        _check(answer)

    def _webhook(self, delivery: Delivery) -> str:
        try:
            return secrets.revealed(self._vault, delivery.slack_webhook or "").strip()
        except VaultError as error:
            raise DeliveryError("WebhookUnreadable", "the stored webhook cannot be read", persistent=True) from error


def _check(answer: EgressResponse) -> None:
    """Raises DeliveryError unless the answer says that the message was taken."""
    if answer.status < 300:
        return
    message = f"the webhook answered {answer.status}"
    if 400 <= answer.status < 500 and answer.status not in _ASKS_TO_WAIT:
        raise DeliveryError("WebhookRejected", message, persistent=True)
    wait = answer.headers.get("retry-after", "")
    raise DeliveryError("WebhookFailing", message, after=float(wait) if wait.isascii() and wait.isdigit() else 0)
