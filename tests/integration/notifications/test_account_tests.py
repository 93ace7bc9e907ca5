"""Tests of provider accounts by their owners: the provider is asked, and nothing is sent unless an address is given."""

import asyncio
from typing import Any

import pytest

from tests.api import Organisation, serve
from tests.integration.providers.vendor_harnesses import CONFIGS
from tests.message_engine import NotificationsClient, notifications_client
from tests.provider_fakes.service import FakeService
from tests.provider_fakes.twilio import FakeTwilio

ACCOUNTS = "/notifications/v1/provider_accounts"


async def test_an_account_is_tested_before_it_is_used(live_client: NotificationsClient) -> None:
    """Right and wrong credentials, a test message, an outage: each result as an attempt would have it, and an event."""
    service: FakeService = FakeTwilio()
    async with service.run():
        body = {"kind": "twilio", "channel": "sms", "credentials": service.credentials(), "config": CONFIGS["twilio"]}  # type: ignore[attr-defined]
        path = f"{ACCOUNTS}/{live_client.post(ACCOUNTS, body)['id']}"

        async def tested(body: dict[str, str]) -> Any:
            return await asyncio.to_thread(live_client.post, f"{path}/test", body, status=200)

        asked = await tested({})
        assert (asked["outcome"], asked["class"], service.sent) == ("accepted", None, [])
        sent = await tested({"to": "098123 45000"})
        assert (sent["outcome"], sent["provider_message_id"]) == ("accepted", service.sent[0].id)
        assert service.sent[0].fields["To"] == "+919812345000"
        again = {"Idempotency-Key": "one-test-message"}
        for _ in range(2):
            answer = await asyncio.to_thread(
                live_client.http.post, f"{path}/test", json={"to": "+919812345006"}, headers=again
            )
            assert answer.status_code == 200
        assert [one.fields["To"] for one in service.sent[1:]] == ["+919812345006"]
        live_client.post(path, {"credentials": {"auth_token": "wrong-token"}}, status=200, method="PATCH")
        refused = await tested({})
        assert (refused["outcome"], refused["class"], refused["provider_http"]) == ("rejected", "config", 401)
    gone = await tested({})
    assert (gone["outcome"], gone["class"]) == ("rejected", "connect")
    events = [event["data"]["outcome"] for event in live_client.events("provider_account.tested")]
    assert sorted(events) == ["accepted", "accepted", "accepted", "rejected", "rejected"]
    assert "wrong-token" not in str(live_client.events())


def test_a_provider_without_such_a_call_says_so(live_client: NotificationsClient) -> None:
    """The HTTP provider is called for messages alone."""
    (account,) = live_client.get(ACCOUNTS)["data"]
    tested = live_client.post(f"{ACCOUNTS}/{account['id']}/test", {}, status=200)
    assert (tested["outcome"], tested["provider_account_id"]) == ("not_supported", account["id"])


def test_a_sandbox_account_plays_its_script(org: Organisation) -> None:
    """A recipient's fate is the test's outcome; nothing is stored, so that no receipt follows."""
    client = notifications_client(org.test)
    with client.http:
        paths = {one["channel"]: f"{ACCOUNTS}/{one['id']}/test" for one in client.get(ACCOUNTS)["data"]}
        for channel, to, outcome in (
            ("sms", "+910000000000", "accepted"),
            ("sms", "+910000000030", "rejected"),
            ("email", "delivered@sandbox.test", "accepted"),
        ):
            assert client.post(paths[channel], {"to": to}, status=200)["outcome"] == outcome
        assert client.post(paths["sms"], {"to": "+919812345000"}, status=422)["code"] == "sandbox_address"


@pytest.mark.parametrize(("to", "code"), [("nobody", "address_invalid"), ("+910000000000", "sandbox_address")])
def test_a_bad_recipient_is_refused(live_client: NotificationsClient, to: str, code: str) -> None:
    """Before anything is called, with the field's name."""
    (account,) = live_client.get(ACCOUNTS)["data"]
    refused = live_client.post(f"{ACCOUNTS}/{account['id']}/test", {"to": to}, status=422)
    assert (refused["code"], refused["param"]) == (code, "to")
    live_client.post(f"{ACCOUNTS}/prv_01J9XAAAAAAAAAAAAAAAAAAAAA/test", {}, status=404)


def test_tests_are_limited(module_database: str, module_redis_url: str) -> None:
    """Each may take seconds of this API's time, so that a workspace has a number of them in an hour."""
    with serve(module_database, module_redis_url, SPINE_ACCOUNT_TESTS_PER_HOUR="2") as api:
        client = notifications_client(api.sign_up().test)
        with client.http:
            path = f"{ACCOUNTS}/{client.get(ACCOUNTS)['data'][0]['id']}/test"
            for _ in range(2):
                assert client.post(path, {}, status=200)["outcome"] == "accepted"
            assert client.post(path, {}, status=429)["code"] == "account_test_limited"
