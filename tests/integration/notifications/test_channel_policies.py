"""Channel policies: deadlines, versions, which policy applies, and the simulation."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.message_engine import NotificationsClient

MESSAGES = "/notifications/v1/messages"
POLICIES = "/notifications/v1/channel_policies"
NUMBER = "+910000000000"


def test_a_deadline_that_cannot_be_met_is_refused(client: NotificationsClient) -> None:
    """It is refused when the policy is put, and when the request's own order of channels causes it."""
    steps = [
        {"channel": "whatsapp", "success": "delivered", "wait_s": 60},
        {"channel": "sms", "success": "delivered", "wait_s": 10},
    ]
    late = {"steps": steps, "deadline_s": 60}
    assert client.post(f"{POLICIES}/late", late, status=422, method="PUT")["code"] == "policy_unmeetable"
    client.policy(("sms", "delivered", 10), ("whatsapp", "delivered", 60), slug="tight", deadline_s=30)
    body = {"to": NUMBER, "template": "reminder", "vars": {"time": "5"}, "policy": "tight"}
    client.post(MESSAGES, body)
    assert client.post(MESSAGES, body | {"channels": ["whatsapp", "sms"]}, status=422)["code"] == "policy_unmeetable"


def test_a_short_wait_gets_a_warning(client: NotificationsClient) -> None:
    """A wait below the provider's time to live may cause duplicates; the response warns of it."""
    client.policy(("whatsapp", "delivered", 5), ("sms", "delivered", 300))
    warnings = client.message(client.send(to=NUMBER))["warnings"]
    assert [(one["code"], one["channel"]) for one in warnings] == [("wait_below_time_to_live", "whatsapp")]


def test_the_most_specific_policy_applies(client: NotificationsClient) -> None:
    """Order: the request's channels, else a named policy, else the template's, else the workspace's (N-03)."""
    client.policy(("sms", "delivered", 300), slug="everything")
    assert client.message(client.send(to=NUMBER))["channels"] == ["sms"]
    client.policy(("whatsapp", "delivered", 300), slug="reminders", applies_to={"template": "reminder"})
    assert client.message(client.send(to=NUMBER))["channels"] == ["whatsapp"]
    assert client.message(client.send(to=NUMBER, policy="everything"))["channels"] == ["sms"]
    assert client.message(client.send(to=NUMBER, channels=["sms", "whatsapp"]))["channels"] == ["sms", "whatsapp"]


def test_policies_have_versions(client: NotificationsClient) -> None:
    """PUT creates a policy or its next version; the same body again changes nothing. Two policies cannot both apply."""
    first = client.policy(("sms", "delivered", 300))
    assert (first["version"], client.policy(("sms", "delivered", 300))["version"]) == (1, 1)
    second = client.policy(("sms", "delivered", 200))
    assert (second["id"], second["version"]) == (first["id"], 2)
    assert client.get(f"{POLICIES}/quick") == second
    assert client.get(f"{POLICIES}/{first['id']}") == second
    assert [event["sequence"] for event in client.events("policy.updated")] == [1, 2]
    body = {"steps": [{"channel": "sms"}], "deadline_s": 600}
    assert client.post(f"{POLICIES}/other", body, status=409, method="PUT")["code"] == "policy_exists"


def test_a_simulation_returns_what_would_happen(client: NotificationsClient) -> None:
    """The trace of an imagined world, with the same refusals and warnings as sending."""
    policy = client.policy(("whatsapp", "delivered", 5), ("sms", "delivered", 300))
    path = f"{POLICIES}/{policy['id']}/simulate"
    result = client.post(path, {"world": {"receipts": {"whatsapp": "none"}}}, status=200)
    assert (result["outcome"], result["duplicate_possible"]) == ("delivered", True)
    assert [line["channel"] for line in result["trace"] if line["action"] == "send"] == ["whatsapp", "sms"]
    assert result["warnings"][0]["code"] == "wait_below_time_to_live"
    assert client.post(path, {"world": {"providers_down": ["sandbox"]}}, status=200)["outcome"] == "failed"
    message = {"to": NUMBER, "template": "reminder", "vars": {}}
    assert client.post(path, {"world": {}, "message": message}, status=422)["code"] == "variable_missing"


def test_a_simulation_knows_what_the_world_and_the_person_say(client: NotificationsClient) -> None:
    """Circuits, rates, quotas and costs by account, kind or channel; what a contact does not want; the hours of Indian rules."""
    policy = client.policy(("whatsapp", "delivered", 5), ("sms", "delivered", 300))
    path = f"{POLICIES}/{policy['id']}/simulate"

    def actions(world: dict[str, Any], **more: Any) -> list[tuple[str, str | None, str | None]]:
        lines = client.post(path, {"world": world} | more, status=200)["trace"]
        return [(line["action"], line["channel"], line["reason"]) for line in lines]

    assert actions({"circuits_open": {"whatsapp": 60}})[0] == ("skip", "whatsapp", "circuit_open")
    assert actions({"recipient_rate": {"sandbox whatsapp": 4}})[0] == ("wait", None, "recipient_rate")
    assert actions({"recipient_rate": {"sandbox": 6}})[0] == ("skip", "whatsapp", "recipient_rate")
    assert actions({"opted_out": ["whatsapp"]})[0] == ("skip", "whatsapp", "opted_out")
    assert ("skip", "sms", "quota_exceeded") in actions({"quota_used_up": True, "receipts": {"whatsapp": "none"}})
    accounts = client.get("/notifications/v1/provider_accounts")["data"]
    (whatsapp,) = [row["id"] for row in accounts if row["channel"] == "whatsapp"]
    client.post(f"/notifications/v1/provider_accounts/{whatsapp}", {"unit_cost_micros": 5}, status=200, method="PATCH")
    assert actions({"spend_used_up": True})[0] == ("skip", "whatsapp", "quota_exceeded")

    contact = client.contact(phone=NUMBER)
    wish = {"contact_id": contact, "channel": "whatsapp", "category": "*", "opted_out": True}
    client.post("/notifications/v1/preferences", wish, status=200, method="PUT")
    dlt = {"entity_id": "1201159", "template_id": "1207161", "header": "SPINEX", "category": "promotional"}
    client.template(slug="offer", dlt=dlt)
    message = {"template": "offer", "vars": {"time": "5"}}
    at = f"{(datetime.now(UTC) + timedelta(days=1)).date()}T18:00:00Z"
    for to in ({"contact_id": contact}, {"to": NUMBER}):
        assert actions({}, message=message | to, at=at)[:3] == [
            ("skip", "whatsapp", "opted_out"),
            ("skip", "sms", "window_closed"),
            ("fail", None, "exhausted"),
        ]
