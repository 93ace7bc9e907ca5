"""An outage of one provider under load, over two vendors' fakes: traffic moves, and nobody gets a message twice."""

import asyncio
from collections import Counter
from datetime import datetime
from typing import Any

from tests.api import Api, Organisation
from tests.integration.providers.vendor_harnesses import CONFIGS, DLT
from tests.message_engine import NotificationsClient, fetch_value, sending, until
from tests.provider_fakes.exotel import FakeExotel
from tests.provider_fakes.twilio import FakeTwilio

MESSAGES = 300


async def test_an_outage_moves_the_traffic(api: Api, live: NotificationsClient, org: Organisation) -> None:
    """300 messages, and the preferred provider answers 503 from the 60th on: one opening is told, the other takes the rest."""
    twilio, exotel = FakeTwilio(), FakeExotel()
    async with twilio.run(), exotel.run():
        for kind, service, priority in (("twilio", twilio, 1), ("exotel", exotel, 2)):
            body = {"kind": kind, "channel": "sms", "credentials": service.credentials(), "config": CONFIGS[kind]}
            await asyncio.to_thread(live.post, "/notifications/v1/provider_accounts", body | {"priority": priority})
        live.template(slug="sms_only", bodies={"sms": "At {{ time }}"}, dlt=DLT)
        live.policy(("sms", "sent", 60), slug="sms_only", deadline_s=600)
        one = {"to": "", "template": "sms_only", "policy": "sms_only", "vars": {"time": "5"}}
        batch = [one | {"to": f"+9198{n:07d}0"} for n in range(MESSAGES)]
        await asyncio.to_thread(live.post, "/notifications/v1/messages/batch", {"messages": batch})

        async def some_sent() -> bool:
            return len(twilio.sent) >= 60

        async def ended() -> Any:
            query = "SELECT count(*) = $2 FROM spine.messages WHERE workspace_id = $1 AND ended_at IS NOT NULL"
            return await fetch_value(api, query, org.live.workspace_id, MESSAGES)

        async with sending(api, breaker_min_calls=10, breaker_open_s=300):
            await until(some_sent, "nothing was sent")
            twilio.down = True
            await until(ended, "not all messages ended", 60)

            async def told() -> Any:
                return await asyncio.to_thread(live.events, "provider.circuit_opened")

            opened = await until(told, "the opening was not told of")
    arrived = Counter([str(sent.fields["To"]) for sent in (*twilio.sent, *exotel.sent)])
    assert len(arrived) == MESSAGES
    assert set(arrived.values()) == {1}
    assert len(exotel.sent) > MESSAGES / 3
    assert [event["data"]["kind"] for event in opened] == ["twilio"]
    flags = "SELECT count(*) FROM spine.messages WHERE workspace_id = $1 AND (duplicate_possible OR status <> 'sent')"
    assert await fetch_value(api, flags, org.live.workspace_id) == 0
    calls = "SELECT count(*) FROM spine.attempts WHERE workspace_id = $1 AND provider = 'twilio'"
    refused = f"{calls} AND outcome = 'rejected'"
    assert await fetch_value(api, refused, org.live.workspace_id) >= 10
    # A decision that was under way at the opening may still call it, so the last second before it counts as before.
    late = f"{calls} AND started_at > $2::timestamptz + interval '1 second'"
    opened_at = datetime.fromisoformat(opened[0]["timestamp"])
    assert await fetch_value(api, late, org.live.workspace_id, opened_at) == 0
