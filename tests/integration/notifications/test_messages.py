"""Sending messages over the API: what is refused before anything is queued, what is pinned, and once per key."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import httpx
import pytest

from tests.api import Api, Organisation
from tests.message_engine import Post

MESSAGES = "/notifications/v1/messages"


@pytest.fixture
def post(http: httpx.Client) -> Post:
    """A test workspace with a template for every channel."""
    made = Post(http)
    made.template()
    return made


@pytest.fixture
def live(live_http: httpx.Client) -> Post:
    """A live workspace with a template, and an HTTP provider for SMS."""
    made = Post(live_http)
    made.template()
    secret = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    account = {"channel": "sms", "kind": "http", "credentials": {"url": "http://127.0.0.1:9/", "secret": secret}}
    made.post("/notifications/v1/provider_accounts", account)
    return made


def rows(api: Api, workspace_id: str) -> tuple[int, int]:
    """(messages, queue rows) of a workspace, seen by the database's owner."""

    async def count() -> tuple[int, int]:
        connection = await asyncpg.connect(api.database_url)
        try:
            query = (
                "SELECT (SELECT count(*) FROM spine.messages WHERE workspace_id = $1), "
                "(SELECT count(*) FROM spine.sends_open WHERE workspace_id = $1)"
            )
            row = await connection.fetchrow(query, workspace_id)
            assert row is not None
            return row[0], row[1]
        finally:
            await connection.close()

    return asyncio.run(count())


def test_the_printed_call_answers_201(post: Post, http: httpx.Client) -> None:
    """Contact, template, channels, vars: 201, a Location, `queued`, the strategy echoed (N-05, X20)."""
    contact = post.contact("+910000000000")
    body = {"contact_id": contact, "template": "reminder", "channels": ["whatsapp", "sms"], "vars": {"time": "5:00 PM"}}
    answer = http.post(MESSAGES, json=body)
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{MESSAGES}/{made['id']}"
    assert made["id"].startswith("msg_")
    assert (made["status"], made["strategy"], made["channels"]) == ("queued", "fallback", ["whatsapp", "sms"])
    assert (made["template_version"], made["attempts"], made["receipt"]["delivered_at"]) == (1, [], None)
    assert made == http.get(answer.headers["location"]).json()
    created = post.events("message.created")
    assert [event["data"]["id"] for event in created] == [made["id"]]
    assert post.audit(made["id"])[0]["detail"]["policy"]["why"] == "built_in"


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
def test_what_can_be_known_to_be_wrong_is_refused(
    post: Post, http: httpx.Client, api: Api, org: Organisation, change: dict[str, Any], code: str, param: str
) -> None:
    """422 with a code and the field, and nothing is queued."""
    contact = post.contact("+910000000000")
    body = {
        "contact_id": contact,
        "template": "reminder",
        "channels": ["whatsapp", "sms"],
        "vars": {"time": "5"},
    } | change
    answer = http.post(MESSAGES, json={name: value for name, value in body.items() if value is not None})
    assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (422, code, param)
    assert rows(api, org.test.workspace_id) == (0, 0)


def test_a_variable_of_the_second_channel_alone_is_missed_at_once(post: Post, http: httpx.Client) -> None:
    """What only the fallback would need is refused now, not at fallback time (failure case 25)."""
    post.template(slug="two", bodies={"whatsapp": "Hi", "sms": "Your code is {{ code }}"}, required_vars=[])
    body = {"to": "+910000000000", "template": "two", "channels": ["whatsapp", "sms"], "vars": {}}
    answer = http.post(MESSAGES, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "variable_missing")
    assert "sms" in answer.json()["detail"]
    post.send(to="+910000000000", template="two", channels=["whatsapp"], vars={})


def test_a_channel_without_a_body_or_an_account_is_refused(post: Post, live: Post) -> None:
    """Each step needs a body in the template and a provider account."""
    post.template(slug="sms_only", bodies={"sms": "Hi"}, required_vars=[])
    body = {"to": "+910000000000", "template": "sms_only", "channels": ["whatsapp"], "vars": {}}
    assert post.post(MESSAGES, body, status=422)["code"] == "template_body_missing"
    body = {"to": "+919876543210", "template": "reminder", "channels": ["whatsapp"], "vars": {"time": "5"}}
    assert live.post(MESSAGES, body, status=422)["code"] == "no_provider_account"


def test_test_and_live_do_not_mix(post: Post, live: Post) -> None:
    """A live key refuses the sandbox's recipients, a test key real providers, and a live one the sandbox (P-02)."""
    body = {"to": "+910000000000", "template": "reminder", "channels": ["sms"], "vars": {"time": "5"}}
    assert live.post(MESSAGES, body, status=422)["code"] == "sandbox_address"
    smtp = {
        "channel": "email",
        "kind": "smtp",
        "credentials": {"host": "127.0.0.1"},
        "config": {"sender": "a@example.com"},
    }
    assert post.post("/notifications/v1/provider_accounts", smtp, status=422)["code"] == "provider_not_allowed"
    sandbox = {"channel": "sms", "kind": "sandbox"}
    assert live.post("/notifications/v1/provider_accounts", sandbox, status=422)["code"] == "provider_not_allowed"


def test_a_deadline_that_cannot_be_met_is_refused(post: Post, http: httpx.Client) -> None:
    """At PUT, and at POST where the request's own order makes it so."""
    steps = [
        {"channel": "whatsapp", "success": "delivered", "wait_s": 60},
        {"channel": "sms", "success": "delivered", "wait_s": 10},
    ]
    late = {"steps": steps, "deadline_s": 60}
    answer = http.put("/notifications/v1/channel_policies/late", json=late)
    assert (answer.status_code, answer.json()["code"]) == (422, "policy_unmeetable")
    post.policy(("sms", "delivered", 10), ("whatsapp", "delivered", 60), slug="tight", deadline_s=30)
    body = {"to": "+910000000000", "template": "reminder", "vars": {"time": "5"}, "policy": "tight"}
    post.post(MESSAGES, body)
    assert post.post(MESSAGES, body | {"channels": ["whatsapp", "sms"]}, status=422)["code"] == "policy_unmeetable"


def test_a_short_wait_is_warned_of(post: Post) -> None:
    """A wait below the provider's time to live is where duplicates come from; the answer says so."""
    post.policy(("whatsapp", "delivered", 5), ("sms", "delivered", 300))
    made = post.message(post.send(to="+910000000000"))
    assert [(one["code"], one["channel"]) for one in made["warnings"]] == [("wait_below_time_to_live", "whatsapp")]


def test_the_policy_of_the_template_comes_before_the_workspaces(post: Post) -> None:
    """Order: the request's channels, else a named policy, else the template's, else the workspace's (N-03)."""
    post.policy(("sms", "delivered", 300), slug="everything")
    assert post.message(post.send(to="+910000000000"))["channels"] == ["sms"]
    post.policy(("whatsapp", "delivered", 300), slug="reminders", applies_to={"template": "reminder"})
    assert post.message(post.send(to="+910000000000"))["channels"] == ["whatsapp"]
    assert post.message(post.send(to="+910000000000", policy="everything"))["channels"] == ["sms"]
    assert post.message(post.send(to="+910000000000", channels=["sms", "whatsapp"]))["channels"] == ["sms", "whatsapp"]


def test_versions_are_pinned(post: Post) -> None:
    """A template or policy that is changed while a message waits does not change the message (failure case 26)."""
    post.policy(("sms", "delivered", 300))
    id = post.send(to="+910000000000")
    post.policy(("whatsapp", "delivered", 300))
    second = post.template(bodies={"sms": "Other {{ time }}"})
    made = post.message(id)
    assert (made["template_version"], made["channels"], made["policy"]["version"]) == (1, ["sms"], 1)
    assert second["version"] == 2


def test_one_key_is_one_message(post: Post, org: Organisation) -> None:
    """Twenty parallel posts of one body make one message; another body under the key is 409 (failure case 24)."""
    contact = post.contact("+910000000000")
    body = {"contact_id": contact, "template": "reminder", "channels": ["sms"], "vars": {"time": "5"}}

    def send(_: int) -> httpx.Response:
        with org.test.client() as client:
            return client.post(MESSAGES, json=body, headers={"Idempotency-Key": "same"})

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len(post.get(MESSAGES)["data"]) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 19
    with org.test.client() as client:
        other = client.post(MESSAGES, json=body | {"vars": {"time": "6"}}, headers={"Idempotency-Key": "same"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")


def test_a_refusal_is_a_result(post: Post, http: httpx.Client) -> None:
    """What a rule refused stays refused under its key, even when the reason is gone (ruling X17)."""
    body = {"to": "+910000000000", "template": "later", "channels": ["sms"], "vars": {"time": "5"}}
    headers = {"Idempotency-Key": "refused"}
    first = http.post(MESSAGES, json=body, headers=headers)
    post.template(slug="later")
    again = http.post(MESSAGES, json=body, headers=headers)
    assert (first.status_code, again.status_code) == (422, 422)
    assert first.content == again.content
    assert again.headers["idempotent-replayed"] == "true"
    assert http.post(MESSAGES, json=body).status_code == 201


def test_a_batch_is_all_or_nothing(post: Post, http: httpx.Client, api: Api, org: Organisation) -> None:
    """A thousand in one call, in their order; one that cannot be sent refuses them all and is named."""
    one = {"to": "+910000000000", "template": "reminder", "channels": ["sms"], "vars": {"time": "5"}}
    bad = http.post(f"{MESSAGES}/batch", json={"messages": [one, one | {"vars": {}}]})
    assert (bad.status_code, bad.json()["param"]) == (422, "messages.1.vars.time")
    assert rows(api, org.test.workspace_id) == (0, 0)
    many = [one | {"vars": {"time": str(n)}} for n in range(1000)]
    made = post.post(f"{MESSAGES}/batch", {"messages": many})["data"]
    assert [message["vars"]["time"] for message in made] == [str(n) for n in range(1000)]
    assert rows(api, org.test.workspace_id) == (1000, 1000)
    assert http.post(f"{MESSAGES}/batch", json={"messages": [*many, one]}).status_code == 422


def test_what_is_queued_or_scheduled_can_be_cancelled(
    post: Post, http: httpx.Client, api: Api, org: Organisation
) -> None:
    """Cancelling takes it off the queue, tells of it once, and cannot be done twice."""
    id = post.send(to="+910000000000", channels=["sms"])
    cancelled = post.post(f"{MESSAGES}/{id}/cancel", {}, status=200)
    assert cancelled["status"] == "cancelled"
    again = http.post(f"{MESSAGES}/{id}/cancel", json={})
    assert (again.status_code, again.json()["code"], again.json()["allowed"]) == (409, "illegal_transition", [])
    assert [event["sequence"] for event in post.events("message.*")] == [1, 2]
    assert rows(api, org.test.workspace_id)[1] == 0
    assert [entry["kind"] for entry in post.audit(id)] == ["message.created", "message.cancelled"]


def test_whoever_is_in_the_address_book_is_found_by_address(post: Post) -> None:
    """A message `to` a known number belongs to its contact, so that wishes are not passed by."""
    contact = post.contact("+910000000000")
    assert post.message(post.send(to="+91 0000000 000", channels=["sms"]))["contact_id"] == contact
    assert post.message(post.send(to={"phone": "+910000000100"}, channels=["sms"]))["contact_id"] is None


def test_a_template_is_checked_and_previewed(post: Post, http: httpx.Client) -> None:
    """A body that liquid refuses is named; a preview shows what would go out."""
    broken = {"slug": "b", "bodies": {"sms": "ok", "email": {"subject": "{{ a", "text": "x"}}}
    answer = http.post("/notifications/v1/templates", json=broken)
    assert (answer.status_code, answer.json()["param"]) == (422, "bodies.email.subject")
    id = post.get("/notifications/v1/templates?slug=reminder")["data"][0]["id"]
    shown = post.post(
        f"/notifications/v1/templates/{id}/preview", {"channel": "email", "vars": {"time": "<5>"}}, status=200
    )
    assert (shown["subject"], shown["text"], shown["html"]) == ("At <5>", "See you at <5>", "<b>&lt;5&gt;</b>")
    missing = http.post(f"/notifications/v1/templates/{id}/preview", json={"channel": "email"})
    assert (missing.status_code, missing.json()["code"]) == (422, "variable_missing")


def test_policies_have_versions_and_tell_what_changed(post: Post, http: httpx.Client) -> None:
    """PUT makes a policy or its next version; the same again changes nothing."""
    first = post.policy(("sms", "delivered", 300))
    assert (first["version"], post.policy(("sms", "delivered", 300))["version"]) == (1, 1)
    second = post.policy(("sms", "delivered", 200))
    assert (second["id"], second["version"]) == (first["id"], 2)
    assert post.get("/notifications/v1/channel_policies/quick") == second
    assert post.get(f"/notifications/v1/channel_policies/{first['id']}") == second
    assert [event["sequence"] for event in post.events("policy.updated")] == [1, 2]
    body = {"steps": [{"channel": "sms"}], "deadline_s": 600}
    clash = http.put("/notifications/v1/channel_policies/other", json=body)
    assert (clash.status_code, clash.json()["code"]) == (409, "policy_exists")


def test_credentials_are_never_read_back(live: Post, api: Api) -> None:
    """A secret goes in and does not come out: not in answers, events or the database in the clear."""
    secret = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    listed = live.get("/notifications/v1/provider_accounts")["data"]
    assert len(listed) == 1
    assert secret not in str(listed) + str(live.events("provider_account.*"))

    async def dump() -> str:
        connection = await asyncpg.connect(api.database_url)
        try:
            found: str = await connection.fetchval(
                "SELECT string_agg(a::text || coalesce(encode(credentials, 'escape'), ''), '') FROM spine.provider_accounts a"
            )
            return found
        finally:
            await connection.close()

    assert secret not in asyncio.run(dump())
    changed = live.post(
        f"/notifications/v1/provider_accounts/{listed[0]['id']}", {"priority": 5}, status=200, method="PATCH"
    )
    assert (changed["priority"], changed["version"]) == (5, 2)
    bad = {"credentials": {"url": "http://10.0.0.1/"}}
    account = f"/notifications/v1/provider_accounts/{listed[0]['id']}"
    assert live.post(account, bad, status=422, method="PATCH")["param"] == "credentials.url"


def test_simulate_tells_what_would_happen(post: Post) -> None:
    """The trace of an imagined world, with the same refusals and warnings as sending."""
    policy = post.policy(("whatsapp", "delivered", 5), ("sms", "delivered", 300))
    at = f"/notifications/v1/channel_policies/{policy['id']}/simulate"
    world = {"receipts": {"whatsapp": "none"}}
    told = post.post(at, {"world": world}, status=200)
    assert (told["outcome"], told["duplicate_possible"]) == ("delivered", True)
    assert [line["channel"] for line in told["trace"] if line["action"] == "send"] == ["whatsapp", "sms"]
    assert told["warnings"][0]["code"] == "wait_below_time_to_live"
    down = post.post(at, {"world": {"providers_down": ["sandbox"]}}, status=200)
    assert down["outcome"] == "failed"
    message = {"to": "+910000000000", "template": "reminder", "vars": {}}
    assert post.post(at, {"world": {}, "message": message}, status=422)["code"] == "variable_missing"
