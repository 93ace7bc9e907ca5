"""Replies and preferences: what a contact opts out of is not sent."""

import asyncio
from typing import Any

from tests.api import Api
from tests.message_engine import NotificationsClient, sending, until


async def test_a_reply_is_an_event_and_stop_is_an_opt_out(api: Api, client: NotificationsClient) -> None:
    """A reply emits an event. STOP is an opt-out, ends the message's steps and blocks its category (case 19)."""
    replier, stopper = client.contact("+910000000001"), client.contact("+910000000202")
    answered, stopped = client.send(contact_id=replier), client.send(contact_id=stopper)
    async with sending(api):
        found = await client.until(stopped, "failed")
        assert [one["channel"] for one in found["attempts"]] == ["whatsapp"]
        assert [reason["reason"] for reason in found["reasons"]] == ["delivery_unknown", "opted_out"]
        await client.until(answered, "delivered")
        blocked = await client.until(client.send(contact_id=stopper, channels=["whatsapp"]), "failed")
        assert [reason["reason"] for reason in blocked["reasons"]] == ["opted_out"]
        assert blocked["attempts"] == []
        client.template(slug="otp", category="otp")
        await client.until(client.send(contact_id=stopper, channels=["whatsapp"], template="otp"), "sent")

        async def replies() -> Any:
            return len(await asyncio.to_thread(client.events, "message.replied")) >= 3

        await until(replies, "the replies never came")
    preferences = client.get(f"/notifications/v1/preferences?contact_id={stopper}")["data"]
    marketing = [one for one in preferences if one["category"] == "marketing"]
    assert [(one["channel"], one["opted_out"], one["source"]) for one in marketing] == [("whatsapp", True, "reply")]
    reply = next(event for event in client.events("message.replied") if event["data"]["message_id"] == answered)
    assert (reply["data"]["wish"], reply["data"]["contact_id"], reply["actor"]["type"]) == (None, replier, "contact")
    assert client.events("preference.changed")[0]["data"]["contact_id"] == stopper
    kinds = [entry["kind"] for entry in client.get(f"/crm/v1/contacts/{stopper}/timeline")["data"]]
    assert {"message.replied", "preference.changed"} <= set(kinds)


async def test_an_opt_out_is_stored_and_withdrawn(api: Api, client: NotificationsClient) -> None:
    """PUT opts out and in. The same PUT again changes nothing, and the history has both changes."""
    path, contact = "/notifications/v1/preferences", client.contact("+910000000000")
    opt_out = {"contact_id": contact, "channel": "whatsapp", "category": "marketing", "opted_out": True}
    first = client.post(path, opt_out, status=200, method="PUT")
    assert client.post(path, opt_out, status=200, method="PUT") == first
    async with sending(api):
        found = await client.until(client.send(contact_id=contact), "delivered")
        assert found["channel"] == "sms"
        assert [reason["reason"] for reason in found["reasons"]] == ["opted_out"]
        client.post(path, opt_out | {"opted_out": False}, status=200, method="PUT")
        assert (await client.until(client.send(contact_id=contact), "delivered"))["channel"] == "whatsapp"
    assert len(client.events("preference.changed")) == 2
