"""What people are told: plain text, no content of any call. Pure."""

import re
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

from loam_gateway.alerts.model import Alert, Delivery
from loam_gateway.ledger.model import Period, Scope
from loam_shared.money import format_usd

_PERIODS = {Period.DAY: "daily", Period.MONTH: "monthly", Period.TOTAL: "total"}
# Letters that are not seen, or turn the direction of writing, do not belong into a name.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_LONGEST_SUBJECT = 100


def headline(alert: Alert) -> str:
    """Who passed what, without the name of a user or key."""
    whose = {Scope.TENANT: "", Scope.USER: "a user of ", Scope.KEY: "an API key of "}.get(alert.scope, "")
    spent = "used up" if alert.percent == 100 else f"spent {alert.percent}% of"
    return f"{whose}{alert.tenant} has {spent} its {_PERIODS[alert.period]} budget"


def sentences(alert: Alert) -> str:
    """The whole message."""
    used = alert.spent_nanos * 100 // alert.cap_nanos
    lines = [
        headline(alert)[0].upper() + headline(alert)[1:] + ".",
        f"Spent: ${format_usd(alert.spent_nanos)} of ${format_usd(alert.cap_nanos)} ({used}%).",
        f"Budget: {_budget(alert)}.",
        f"It resets at {alert.resets_at:%Y-%m-%d %H:%M} UTC.",
        "Calls that do not fit into what is left are refused until then, unless the cap is raised.",
    ]
    return "\n".join(lines)


def slack(delivery: Delivery) -> dict[str, Any]:
    """The body for a Slack webhook. Slack reads `&`, `<` and `>` as markup, and `<!channel>` would call everybody."""
    text = f"{sentences(delivery.alert)}\nMessage {delivery.id}"
    return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"), "mrkdwn": False}


def mail(delivery: Delivery, sender: str) -> EmailMessage:
    """The mail. Its Message-ID is the delivery's, so that a second copy can be told from a second alert."""
    message = EmailMessage(policy=SMTP)
    message["From"] = Address("Loam", addr_spec=sender)
    message["To"] = Address(addr_spec=delivery.recipient)
    message["Subject"] = f"Loam: {headline(delivery.alert)}"
    message["Date"] = format_datetime(delivery.raised_at)
    message["Message-ID"] = f"<{delivery.id}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(f"{sentences(delivery.alert)}\n")
    return message


def _budget(alert: Alert) -> str:
    name = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", alert.subject)[:_LONGEST_SUBJECT]
    whose = {Scope.USER: f'user "{name}" of ', Scope.KEY: f'API key "{name}" of '}.get(alert.scope, "")
    return f"{_PERIODS[alert.period]}, {whose}{alert.tenant}"
