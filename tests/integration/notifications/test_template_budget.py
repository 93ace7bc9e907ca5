"""A template that needs more than its budget: refused on every road that renders, and a rejected attempt at send."""

from typing import Any

import pytest

from tests.api import Api
from tests.message_engine import NotificationsClient, sending

TEMPLATES = "/notifications/v1/templates"
HOSTILE = {
    "a joined range": "{{ (1..30000000) | join: '' | size }}",
    "nine replaces": "{% assign a = 'aaaaaaaaaa' %}{{ a" + " | replace: 'a', 'aaaaaaaaaa'" * 9 + " | size }}",
    "nested loops": "{% for a in rows %}{% for b in rows %}{% for c in rows %}.{% endfor %}{% endfor %}{% endfor %}",
}
VARS: dict[str, Any] = {"rows": list(range(3000))}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_expensive_template_is_refused_wherever_it_is_rendered(client: NotificationsClient, name: str) -> None:
    """At preview, on sending, in a batch and in a simulation: 422 `template_too_expensive`, and nothing is queued."""
    template = client.template(slug="hostile", bodies={"sms": HOSTILE[name]}, required_vars=[])
    message = {"to": "+910000000000", "template": "hostile", "channels": ["sms"], "vars": VARS}
    preview = {"channel": "sms", "vars": VARS}
    client.policy(("sms", "sent", 1))
    for path, body in (
        (f"{TEMPLATES}/{template['id']}/preview", preview),
        ("/notifications/v1/messages", message),
        ("/notifications/v1/messages/batch", {"messages": [message]}),
        ("/notifications/v1/channel_policies/quick/simulate", {"message": message}),
    ):
        assert client.post(path, body, status=422)["code"] == "template_too_expensive", path
    assert client.get("/notifications/v1/messages")["data"] == []


def test_a_template_with_too_much_code_is_not_saved(client: NotificationsClient) -> None:
    """The field is named. Openings without an end held the API for 16 s."""
    for source, code in (("{{ a }}" * 2_000, "template_too_expensive"), ("{{" * 9_000, "template_invalid")):
        body = {"slug": "x", "bodies": {"email": {"subject": "s", "text": "t", "html": source}}}
        refused = client.post(TEMPLATES, body, status=422)
        assert (refused["code"], refused["param"]) == (code, "bodies.email.html")


def test_what_no_event_can_tell_of_is_not_made(client: NotificationsClient) -> None:
    """An object whose event would be larger than SPINE_MAX_EVENT_BYTES is refused, and neither is written."""
    long = "😀" * 19_000
    body = {
        "slug": "x",
        "bodies": {"sms": long, "whatsapp": long, "email": {"subject": "s", "text": long, "html": long}},
    }
    refused = client.post(TEMPLATES, body, status=413)
    assert refused["code"] == "event_too_large"
    assert "template.created" in refused["detail"]
    assert client.get(f"{TEMPLATES}?slug=x")["data"] == []
    assert "x" not in [event["data"]["slug"] for event in client.events("template.created")]


def test_variables_have_a_size(client: NotificationsClient) -> None:
    """64 KiB of JSON together; above it the field is named."""
    message = {"to": "+910000000000", "template": "reminder", "channels": ["sms"], "vars": {"time": "5" * 66_000}}
    assert client.post("/notifications/v1/messages", message, status=422)["param"] == "vars"


async def test_an_expensive_template_is_a_rejected_attempt_at_send(api: Api, client: NotificationsClient) -> None:
    """Where a worker's budget is smaller than the API's, its attempt is rejected, and the next channel is tried."""
    loop = "{% for i in (1..900) %}{% endfor %}"
    client.template(slug="long", bodies={"whatsapp": loop, "sms": "short"}, required_vars=[])
    client.policy(("whatsapp", "sent", 1), ("sms", "sent", 1))
    id = client.send(to="+910000000000", template="long", policy="quick", vars={})
    async with sending(api, template_max_steps=1_000):
        found = await client.until(id, "sent", "delivered", "failed")
    assert [(one["channel"], one["outcome"], one["class"], one["provider_code"]) for one in found["attempts"]] == [
        ("whatsapp", "rejected", "content", "template_too_expensive"),
        ("sms", "accepted", None, None),
    ]
