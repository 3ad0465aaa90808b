"""Alerts arrive, by webhook and mail, once each, whichever gateway sends them and whatever fails on the way."""

import asyncio
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from email.utils import parseaddr
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from loam_gateway.adapters.postgres import Pool
from loam_gateway.adapters.smtp import MailServer
from loam_gateway.alerts import messages
from loam_gateway.alerts.model import Alert, Channel, Delivery
from loam_gateway.alerts.settings import AlertSettings
from loam_gateway.ledger import Ledger
from loam_gateway.ledger.model import Period, Scope
from loam_shared.contracts.admin import EmailAddress, TenantPut
from loam_shared.errors import BudgetExceededError

from ._receivers import Mailbox, Webhook, webhook
from .conftest import Customer, Rooms, new_customer, until

USD = 10**9
OPS = "ops@acme.example"
DISCONNECT_ALL_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def budget(hook: Webhook | None = None, *emails: str, **more: object) -> dict[str, object]:
    alerts = {"slackWebhook": hook.url if hook else None, "emails": emails}
    services = [hook.service] if hook else []
    return {"monthlyUsd": "10", "alertPercents": [50, 80], "alerts": alerts, "services": services} | more


async def arrived(customer: Customer) -> bool:
    deliveries = await customer.deliveries()
    return bool(deliveries) and all(delivery["sent_at"] for delivery in deliveries)


async def test_a_passed_percentage_is_told_by_webhook_and_by_mail(
    customer: Customer, hook: Webhook, mails: Mailbox, open_room: Rooms
) -> None:
    await customer.put(**budget(hook, OPS, "boss@acme.example"))
    await open_room(mails)
    await customer.spend(6 * USD)
    await until(lambda: arrived(customer), "all messages have arrived")
    [text] = hook.texts
    assert text.startswith(
        f"{customer.name.capitalize()} has spent 50% of its monthly budget.\nSpent: $6 of $10 (60%)."
    )
    assert "It resets at 20" in text
    assert sorted(recipient for recipient, _ in mails.mails) == ["boss@acme.example", OPS]
    [mail] = mails.of(OPS)
    assert mail["Subject"] == f"Loam: {customer.name} has spent 50% of its monthly budget"
    assert (parseaddr(mail["From"])[1], parseaddr(mail["To"])[1]) == ("loam@platform.example", OPS)
    assert "Spent: $6 of $10 (60%)." in mail.get_content()
    assert mail["Message-ID"].endswith("@platform.example>")


async def test_a_budget_that_refuses_calls_is_told_as_used_up_though_a_rest_of_it_is_left(
    customer: Customer, hook: Webhook, open_room: Rooms
) -> None:
    await customer.put(**budget(hook, alertPercents=[100]))
    await open_room()
    await customer.spend(8 * USD)
    with pytest.raises(BudgetExceededError):
        await customer.spend(3 * USD)
    await customer.spend(USD)
    with pytest.raises(BudgetExceededError):
        await customer.spend(3 * USD)
    await until(lambda: arrived(customer), "it has arrived")
    [text] = hook.texts
    assert text.startswith(f"{customer.name.capitalize()} has used up its monthly budget.\nSpent: $9 of $10 (90%).")


async def test_three_gateways_send_each_message_once(
    pool: Pool, ledger: Ledger, hook: Webhook, mails: Mailbox, open_room: Rooms
) -> None:
    customers = [await new_customer(pool, ledger) for _ in range(25)]
    for customer in customers:
        await customer.put(**budget(hook, OPS))
        await customer.spend(9 * USD)
    for _ in range(3):
        await open_room(mails)
    for customer in customers:
        await until(lambda customer=customer: arrived(customer), "all messages have arrived")
    assert len(hook.ids) == len(set(hook.ids)) == 50
    ids = [mail["Message-ID"] for mail in mails.of(OPS)]
    assert len(ids) == len(set(ids)) == 50


async def test_a_gateway_that_stops_lets_a_message_under_way_arrive(
    customer: Customer, hook: Webhook, mails: Mailbox, open_room: Rooms, pool: Pool, ledger: Ledger
) -> None:
    hook.release.clear()
    await customer.put(**budget(hook, alertPercents=[50]))
    await customer.spend(5 * USD)
    room = await open_room(working=False)
    async with room.working():
        await until(lambda: hook.posts, "it is under way")
        asyncio.get_running_loop().call_later(0.2, hook.release.set)
    assert await arrived(customer)


async def test_a_webhook_that_keeps_everybody_waiting_keeps_only_its_own_tenant_waiting(
    pool: Pool, ledger: Ledger, hook: Webhook, open_room: Rooms
) -> None:
    with webhook() as silent:
        silent.release.clear()
        waiting, others = await new_customer(pool, ledger), [await new_customer(pool, ledger) for _ in range(3)]
        await waiting.put(**budget(silent, alertPercents=list(range(10, 60, 5))))
        await waiting.spend(6 * USD)
        await open_room()
        await until(lambda: silent.posts, "it waits")
        for customer in others:
            await customer.put(**budget(hook))
            await customer.spend(9 * USD)
        for customer in others:
            await until(lambda customer=customer: arrived(customer), "the others have been told")
        assert len(silent.posts) == 1


async def test_a_webhook_that_fails_for_a_while_is_tried_again_with_the_same_id(
    customer: Customer, hook: Webhook, open_room: Rooms
) -> None:
    hook.status = 503
    await customer.put(**budget(hook, alertPercents=[50]))
    room = await open_room()
    await customer.spend(5 * USD)
    await until(lambda: len(hook.posts) >= 2, "it is tried again")
    await until(lambda: _reason(room, customer, "WebhookFailing"), "the status says so")
    hook.status = 200
    await until(lambda: arrived(customer), "it has arrived")
    assert len(set(hook.ids)) == 1
    assert (await room.states(customer.name))[customer.name].ready


async def _reason(room, customer: Customer, reason: str) -> bool:
    return (await room.states())[customer.name].reason == reason


async def test_a_webhook_that_is_refused_for_good_is_told_in_the_status_and_left_alone_until_it_changes(
    customer: Customer, hook: Webhook, open_room: Rooms
) -> None:
    hook.status = 404
    await customer.put(**budget(hook, alertPercents=[50]))
    room = await open_room()
    await customer.spend(5 * USD)
    await until(lambda: _reason(room, customer, "WebhookRejected"), "the status says so")
    assert (await room.states())[customer.name].message == "the webhook answered 404"
    [delivery] = await customer.deliveries()
    assert (delivery["next_attempt_at"] - delivery["tried_at"]).total_seconds() > 1000
    assert len(hook.posts) == 1
    hook.status = 200
    await customer.put(**budget(hook, alertPercents=[50], dailyUsd="100"))
    await room.retry(customer.name)
    await until(lambda: arrived(customer), "it has arrived")
    assert (await room.states())[customer.name].ready


async def test_a_webhook_says_how_long_to_wait(customer: Customer, hook: Webhook, open_room: Rooms) -> None:
    hook.status, hook.headers = 429, {"retry-after": "77"}
    await customer.put(**budget(hook, alertPercents=[50]))
    room = await open_room()
    await customer.spend(5 * USD)
    await until(lambda: _reason(room, customer, "WebhookFailing"), "it was tried")
    [delivery] = await customer.deliveries()
    assert round((delivery["next_attempt_at"] - delivery["tried_at"]).total_seconds()) == 77


async def test_a_webhook_inside_of_the_platform_is_not_called(
    customer: Customer, hook: Webhook, open_room: Rooms
) -> None:
    await customer.put(**budget(hook, alertPercents=[50], services=[]))
    room = await open_room()
    await customer.spend(5 * USD)
    await until(lambda: _reason(room, customer, "WebhookRefused"), "the status says so")
    assert hook.posts == []


async def test_what_cannot_be_sent_for_too_long_is_given_up_and_its_reason_kept(
    customer: Customer, hook: Webhook, open_room: Rooms
) -> None:
    hook.status = 500
    await customer.put(**budget(hook, alertPercents=[50]))
    room = await open_room(alerts_give_up_seconds=0.3)
    await customer.spend(5 * USD)

    async def given_up() -> bool:
        deliveries = await customer.deliveries()
        return bool(deliveries) and deliveries[0]["next_attempt_at"] is None

    await until(given_up, "it is given up")
    [delivery] = await customer.deliveries()
    assert (delivery["sent_at"], delivery["reason"]) == (None, "WebhookFailing")
    assert not (await room.states())[customer.name].ready


async def test_mails_wait_while_there_is_no_mail_server_and_the_status_says_so_before_any_alert(
    customer: Customer, mails: Mailbox, open_room: Rooms, pool: Pool
) -> None:
    await customer.put(**budget(None, OPS, alertPercents=[50]))
    room = await open_room(working=False)
    assert (await room.states())[customer.name].reason == "MailNotConfigured"
    await customer.spend(5 * USD)

    async def noted() -> bool:
        return [delivery["reason"] for delivery in await customer.deliveries()] == ["MailNotConfigured"]

    async with room.working():
        await until(noted, "it is kept with its reason")
    other = await open_room(mails)
    assert (await other.states())[customer.name].reason == "MailNotConfigured", "that one is still to be sent"
    await other.retry(customer.name)
    await until(lambda: arrived(customer), "it has arrived")
    assert (await other.states())[customer.name].ready


async def test_a_mailbox_that_is_not_there_is_not_tried_again_and_the_others_are_told(
    customer: Customer, mails: Mailbox, open_room: Rooms
) -> None:
    mails.unknown.add("gone@acme.example")
    await customer.put(**budget(None, "gone@acme.example", OPS, alertPercents=[50]))
    room = await open_room(mails)
    await customer.spend(5 * USD)
    await until(lambda: mails.of(OPS), "the other mail has arrived")
    await until(lambda: _reason(room, customer, "MailRejected"), "the status says so")
    left = [delivery for delivery in await customer.deliveries() if delivery["sent_at"] is None]
    assert [(delivery["attempts"], delivery["next_attempt_at"]) for delivery in left] == [(1, None)]


async def test_a_target_that_was_taken_away_is_not_told(
    customer: Customer, hook: Webhook, mails: Mailbox, open_room: Rooms
) -> None:
    hook.status = 503
    await customer.put(**budget(hook, alertPercents=[50]))
    room = await open_room(mails)
    await customer.spend(5 * USD)
    await until(lambda: hook.posts, "it was tried")
    await customer.put(**budget(None, alertPercents=[50]))

    async def dropped() -> bool:
        return [delivery["reason"] for delivery in await customer.deliveries()] == ["NotWanted"]

    await until(dropped, "it is dropped")
    assert (await room.states())[customer.name].ready


async def test_alerts_go_on_after_the_database_was_away(
    customer: Customer, hook: Webhook, open_room: Rooms, pool: Pool
) -> None:
    await customer.put(**budget(hook, alertPercents=[50]))
    await open_room()
    for _ in range(3):
        await pool.execute(DISCONNECT_ALL_OTHERS)
    await customer.spend(5 * USD)
    await until(lambda: arrived(customer), "it has arrived")


async def test_a_name_in_a_message_mentions_nobody_and_breaks_no_line(
    customer: Customer, hook: Webhook, mails: Mailbox, open_room: Rooms
) -> None:
    await customer.put(**budget(hook, OPS, alertPercents=[50], monthlyUsd=None, perUserMonthlyUsd="10"))
    await open_room(mails)
    await customer.spend(5 * USD, user="<!channel>\nBcc: x@evil.example\u202e&")
    await until(lambda: arrived(customer), "it has arrived")
    [text] = hook.texts
    assert "&lt;!channel&gt;\ufffdBcc: x@evil.example\ufffd&amp;" in text
    assert "<" not in text
    [mail] = mails.of(OPS)
    assert mail["Bcc"] is None
    assert mail["Subject"] == f"Loam: a user of {customer.name} has spent 50% of its monthly budget"


@pytest.mark.parametrize(
    "address",
    [
        "a@b.example\nBcc: c@d.example",
        "a@b.example\r\n",
        "a@b.example, c@d.example",
        "<a@b.example>",
        'A "x" <a@b.example>',
        "a b@c.example",
        "a@",
        "@b.example",
        "a@b@c.example",
        "a@[127.0.0.1]",
        "a@-b.example",
        "ä@b.example",
        "a..b@c.example",
        ".a@b.example",
        "a.@b.example",
        "a@b..example",
    ],
)
def test_what_is_more_than_one_plain_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError):
        TenantPut.model_validate({"uid": "u", "budget": {"alerts": {"emails": [address]}}})


ADDRESS = TypeAdapter(EmailAddress)
LIKE_ADDRESSES = st.from_regex(r"[a-z.!'`{|}~+-]{1,9}@[a-z0-9.-]{1,9}", fullmatch=True)


@given(LIKE_ADDRESSES)
def test_every_address_that_is_taken_can_be_written_to(address: str) -> None:
    try:
        ADDRESS.validate_python(address)
    except ValidationError:
        return
    now = datetime.now(UTC)
    alert = Alert(uuid4(), "acme", Scope.TENANT, "", Period.DAY, 50, 2, 1, now)
    delivery = Delivery(uuid4(), alert, Channel.EMAIL, address, 1, now, True, None, frozenset())
    written = message_from_bytes(messages.mail(delivery, address).as_bytes(), policy=default)
    assert parseaddr(written["To"])[1] == parseaddr(written["From"])[1] == address


def test_seventeen_addresses_are_too_many() -> None:
    emails = [f"a{n}@b.example" for n in range(17)]
    with pytest.raises(ValidationError):
        TenantPut.model_validate({"uid": "u", "budget": {"alerts": {"emails": emails}}})


@pytest.mark.parametrize(
    "url",
    ["http://u:hunter2@h", "smtp:hunter2", "smtp://:hunter2@", "smtp://u:hunter2@h:99999", "smtp://u:hunter2@h/x"],
)
def test_a_wrong_mail_server_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        AlertSettings(smtp_url=url)
    assert all("hunter2" not in problem["msg"] for problem in refused.value.errors())


def test_a_mail_server_is_read_from_its_url_and_its_password_not_shown() -> None:
    server = MailServer.at("smtps://me%40acme:p%3Ass@mail.example")
    assert (server.host, server.port, server.username, server.password) == ("mail.example", 465, "me@acme", "p:ss")
    assert "p:ss" not in repr(server)
    assert "p%3Ass" not in repr(AlertSettings(smtp_url="smtps://me:p%3Ass@mail.example"))
    assert MailServer.at("smtp+starttls://mail.example").port == 587
