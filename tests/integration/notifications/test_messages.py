"""Sending messages over the API: what is refused before anything is queued, what is pinned, and one message per key."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import httpx
import pytest

from tests.api import Api, Organisation
from tests.message_engine import NotificationsClient

MESSAGES = "/notifications/v1/messages"
ACCOUNTS = "/notifications/v1/provider_accounts"
NUMBER = "+910000000000"
SMS = {"to": NUMBER, "template": "reminder", "channels": ["sms"], "vars": {"time": "5"}}


def fetch_as_owner(api: Api, query: str, *args: Any) -> Any:
    """Run a query as the owner of the database and return its row."""

    async def fetch() -> Any:
        connection = await asyncpg.connect(api.database_url)
        try:
            return await connection.fetchrow(query, *args)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def count_rows(api: Api, org: Organisation) -> tuple[int, int]:
    """Return (messages, queue rows) of the test workspace."""
    query = (
        "SELECT (SELECT count(*) FROM spine.messages WHERE workspace_id = $1), "
        "(SELECT count(*) FROM spine.sends_open WHERE workspace_id = $1)"
    )
    return tuple(fetch_as_owner(api, query, org.test.workspace_id))


def test_the_documented_call_returns_201(client: NotificationsClient, http: httpx.Client) -> None:
    """Contact, template, channels and vars: 201 with a Location, `queued` and the strategy in the body (N-05, X20)."""
    body = {"contact_id": client.contact(NUMBER), "template": "reminder", "vars": {"time": "5:00 PM"}}
    answer = http.post(MESSAGES, json=body | {"channels": ["whatsapp", "sms"]})
    message = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{MESSAGES}/{message['id']}"
    assert message["id"].startswith("msg_")
    assert (message["status"], message["strategy"], message["channels"]) == ("queued", "fallback", ["whatsapp", "sms"])
    assert (message["template_version"], message["attempts"], message["receipt"]["delivered_at"]) == (1, [], None)
    assert message == http.get(answer.headers["location"]).json()
    assert [event["data"]["id"] for event in client.events("message.created")] == [message["id"]]
    assert client.audit(message["id"])[0]["detail"]["policy"]["why"] == "built_in"


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"contact_id": "ctc_01J9XAAAAAAAAAAAAAAAAAAAAA"}, "reference_not_found", "contact_id"),
        ({"contact_id": "nonsense"}, "reference_not_found", "contact_id"),
        ({"template": "unknown"}, "template_not_found", "template"),
        ({"template": "ntp_01J9XAAAAAAAAAAAAAAAAAAAAA"}, "template_not_found", "template"),
        ({"locale": "fr"}, "template_not_found", "template"),
        ({"policy": "unknown"}, "reference_not_found", "policy"),
        ({"vars": {}}, "variable_missing", "vars.time"),
        ({"channels": ["email"]}, "address_missing", "channels"),
        ({"contact_id": None, "to": "not a number"}, "invalid_recipient", "to"),
    ],
)
def test_an_invalid_request_is_refused(
    client: NotificationsClient,
    http: httpx.Client,
    api: Api,
    org: Organisation,
    change: dict[str, Any],
    code: str,
    param: str,
) -> None:
    """The response is 422 with a code and the field, and nothing is queued."""
    body: dict[str, Any] = {"contact_id": client.contact(NUMBER), "template": "reminder"}
    body |= {"channels": ["whatsapp", "sms"], "vars": {"time": "5"}} | change
    answer = http.post(MESSAGES, json={name: value for name, value in body.items() if value is not None})
    assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (422, code, param)
    assert count_rows(api, org) == (0, 0)


def test_a_missing_variable_of_a_later_step_is_refused(client: NotificationsClient) -> None:
    """A variable that only the fallback step uses is checked when the message is created (failure case 25)."""
    client.template(slug="two", bodies={"whatsapp": "Hi", "sms": "Your code is {{ code }}"}, required_vars=[])
    body = {"to": NUMBER, "template": "two", "channels": ["whatsapp", "sms"], "vars": {}}
    refusal = client.post(MESSAGES, body, status=422)
    assert refusal["code"] == "variable_missing"
    assert "sms" in refusal["detail"]
    client.send(**body | {"channels": ["whatsapp"]})


def test_a_channel_without_a_body_or_an_account_is_refused(
    client: NotificationsClient, live_client: NotificationsClient
) -> None:
    """Each step needs a body in the template and a provider account."""
    client.template(slug="sms_only", bodies={"sms": "Hi"}, required_vars=[])
    body = {"to": NUMBER, "template": "sms_only", "channels": ["whatsapp"], "vars": {}}
    assert client.post(MESSAGES, body, status=422)["code"] == "template_body_missing"
    body = SMS | {"to": "+919876543210", "channels": ["whatsapp"]}
    assert live_client.post(MESSAGES, body, status=422)["code"] == "no_provider_account"


def test_test_and_live_do_not_mix(client: NotificationsClient, live_client: NotificationsClient) -> None:
    """A live key refuses sandbox recipients and the sandbox provider; a test key refuses real providers (P-02)."""
    assert live_client.post(MESSAGES, SMS, status=422)["code"] == "sandbox_address"
    smtp = {
        "channel": "email",
        "kind": "smtp",
        "credentials": {"host": "127.0.0.1"},
        "config": {"sender": "a@example.com"},
    }
    assert client.post(ACCOUNTS, smtp, status=422)["code"] == "provider_not_allowed"
    sandbox = {"channel": "sms", "kind": "sandbox"}
    assert live_client.post(ACCOUNTS, sandbox, status=422)["code"] == "provider_not_allowed"


def test_versions_are_pinned(client: NotificationsClient) -> None:
    """A template or policy that changes while a message waits does not change the message (failure case 26)."""
    client.policy(("sms", "delivered", 300))
    id = client.send(to=NUMBER)
    client.policy(("whatsapp", "delivered", 300))
    assert client.template(bodies={"sms": "Other {{ time }}"})["version"] == 2
    message = client.message(id)
    assert (message["template_version"], message["channels"], message["policy"]["version"]) == (1, ["sms"], 1)


def test_one_key_creates_one_message(client: NotificationsClient, org: Organisation) -> None:
    """Twenty parallel posts of one body create one message; another body under the key is 409 (failure case 24)."""

    def send(vars: dict[str, str]) -> httpx.Response:
        with org.test.client() as http:
            return http.post(MESSAGES, json=SMS | {"vars": vars}, headers={"Idempotency-Key": "same"})

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, [{"time": "5"}] * 20))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len(client.get(MESSAGES)["data"]) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 19
    other = send({"time": "6"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")


def test_a_refusal_is_stored_under_its_key(client: NotificationsClient, http: httpx.Client) -> None:
    """A refused request stays refused under its key, even when the reason is gone (ruling X17)."""
    body = SMS | {"template": "later"}
    headers = {"Idempotency-Key": "refused"}
    first = http.post(MESSAGES, json=body, headers=headers)
    client.template(slug="later")
    again = http.post(MESSAGES, json=body, headers=headers)
    assert (first.status_code, again.status_code) == (422, 422)
    assert first.content == again.content
    assert again.headers["idempotent-replayed"] == "true"
    assert http.post(MESSAGES, json=body).status_code == 201


def test_a_batch_is_all_or_nothing(client: NotificationsClient, api: Api, org: Organisation) -> None:
    """A batch takes up to 1,000 messages in order; one invalid message refuses all of them and is named."""
    refusal = client.post(f"{MESSAGES}/batch", {"messages": [SMS, SMS | {"vars": {}}]}, status=422)
    assert refusal["param"] == "messages.1.vars.time"
    assert count_rows(api, org) == (0, 0)
    messages = [SMS | {"vars": {"time": str(n)}} for n in range(1000)]
    accepted = client.post(f"{MESSAGES}/batch", {"messages": messages})["data"]
    assert [message["vars"]["time"] for message in accepted] == [str(n) for n in range(1000)]
    assert count_rows(api, org) == (1000, 1000)
    client.post(f"{MESSAGES}/batch", {"messages": [*messages, SMS]}, status=422)


def test_a_queued_message_can_be_cancelled(client: NotificationsClient, api: Api, org: Organisation) -> None:
    """Cancelling deletes the queue row, emits one event, and cannot be repeated."""
    id = client.send(**SMS)
    assert client.post(f"{MESSAGES}/{id}/cancel", {}, status=200)["status"] == "cancelled"
    again = client.post(f"{MESSAGES}/{id}/cancel", {}, status=409)
    assert (again["code"], again["allowed"]) == ("illegal_transition", [])
    assert [event["sequence"] for event in client.events("message.*")] == [1, 2]
    assert count_rows(api, org)[1] == 0
    assert [entry["kind"] for entry in client.audit(id)] == ["message.created", "message.cancelled"]


def test_an_address_of_a_contact_belongs_to_the_contact(client: NotificationsClient) -> None:
    """A message `to` a contact's number gets its contact_id, so that the contact's opt-outs apply."""
    contact = client.contact(NUMBER)
    assert client.message(client.send(to="+91 0000000 000", channels=["sms"]))["contact_id"] == contact
    assert client.message(client.send(to={"phone": "+910000000100"}, channels=["sms"]))["contact_id"] is None


def test_a_template_is_checked_and_previewed(client: NotificationsClient) -> None:
    """A body that Liquid refuses is named; a preview returns what would be sent."""
    broken = {"slug": "b", "bodies": {"sms": "ok", "email": {"subject": "{{ a", "text": "x"}}}
    assert client.post("/notifications/v1/templates", broken, status=422)["param"] == "bodies.email.subject"
    id = client.get("/notifications/v1/templates?slug=reminder")["data"][0]["id"]
    preview = f"/notifications/v1/templates/{id}/preview"
    shown = client.post(preview, {"channel": "email", "vars": {"time": "<5>"}}, status=200)
    assert (shown["subject"], shown["text"], shown["html"]) == ("At <5>", "See you at <5>", "<b>&lt;5&gt;</b>")
    assert client.post(preview, {"channel": "email"}, status=422)["code"] == "variable_missing"


def test_credentials_are_never_read_back(live_client: NotificationsClient, api: Api, signing_secret: str) -> None:
    """No response, event or plain database column contains a secret. A PATCH checks a new URL's address."""
    (account,) = live_client.get(ACCOUNTS)["data"]
    assert signing_secret not in str(account) + str(live_client.events("provider_account.*"))
    stored = fetch_as_owner(
        api,
        "SELECT string_agg(a::text || coalesce(encode(credentials, 'escape'), ''), '') FROM spine.provider_accounts a",
    )
    assert signing_secret not in stored[0]
    path = f"{ACCOUNTS}/{account['id']}"
    changed = live_client.post(path, {"priority": 5}, status=200, method="PATCH")
    assert (changed["priority"], changed["version"]) == (5, 2)
    internal = {"credentials": {"url": "http://10.0.0.1/"}}
    assert live_client.post(path, internal, status=422, method="PATCH")["param"] == "credentials.url"
