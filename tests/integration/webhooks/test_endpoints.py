"""Webhook endpoints: made, changed, disabled, enabled, rotated, tested, deleted."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest
from standardwebhooks import Webhook

from tests.api import Api, Organisation, serve

URL = "http://127.0.0.1:9/hook"


def make(http: httpx.Client, **more: Any) -> dict[str, Any]:
    """A new endpoint."""
    answer = http.post("/v1/webhook_endpoints", json={"url": URL, "events": ["order.paid"], **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def run(api: Api, query: str, *values: object) -> list[asyncpg.Record]:
    """What the owner is answered."""

    async def fetch() -> list[asyncpg.Record]:
        owner = await asyncpg.connect(api.database_url)
        try:
            rows: list[asyncpg.Record] = await owner.fetch(query, *values)
            return rows
        finally:
            await owner.close()

    return asyncio.run(fetch())


def test_an_endpoint_is_made_with_its_secret(http: httpx.Client) -> None:
    """The secret is `whsec_` and base64 of 32 bytes, usable by the standard library, shown at create only."""
    made = make(http, description="Orders", metadata={"team": "a"}, headers={"X-Token": "t"})
    Webhook(made["secret"])
    assert made["public_key"] is None
    assert made["status"] == "enabled"
    assert made["max_in_flight"] == 20
    read = http.get(f"/v1/webhook_endpoints/{made['id']}").json()
    assert "secret" not in read
    assert read == {name: value for name, value in made.items() if name not in ("secret", "public_key")}
    assert read["headers"] == {"X-Token": "********"}


def test_the_values_of_headers_are_never_shown_again(http: httpx.Client, api: Api) -> None:
    """No answer holds them, neither does a stored one; `********` in a change keeps a value, and only one that is there."""
    made = make(http, headers={"X-Token": "opensesame", "X-Team": "blue"})
    path = f"/v1/webhook_endpoints/{made['id']}"
    changed = http.patch(path, json={"headers": {"X-Token": "********", "X-Team": "greenteam"}})
    assert changed.json()["headers"] == {"X-Token": "********", "X-Team": "********"}
    assert changed.json()["version"] == 2
    kept = http.patch(path, json={"headers": {"X-Token": "opensesame", "X-Team": "greenteam"}})
    assert kept.json()["version"] == 2  # so both values are what they were
    unknown = http.patch(path, json={"headers": {"X-Other": "********"}})
    assert (unknown.status_code, unknown.json()["param"]) == (422, "headers")
    copied = http.post("/v1/webhook_endpoints", json={"url": URL, "events": ["*"], "headers": {"X-Token": "********"}})
    assert (copied.status_code, copied.json()["param"]) == (422, "headers")
    answers = (changed, kept, http.get(path), http.get("/v1/webhook_endpoints"))
    stored = run(api, "SELECT body FROM spine.idempotency_keys WHERE body IS NOT NULL")
    for text in (str(made).encode(), *(answer.content for answer in answers), *(row["body"] for row in stored)):
        assert b"opensesame" not in text
        assert b"greenteam" not in text


def test_an_asymmetric_endpoint_publishes_its_key(http: httpx.Client, api: Api) -> None:
    """v1a: nobody gets the private key; the public one stands at the well-known address, for anybody."""
    made = make(http, signature="v1a")
    assert made["secret"] is None
    assert made["public_key"].startswith("whpk_")
    anybody = httpx.get(f"{api.url}/.well-known/webhook-keys/{made['id']}", trust_env=False)
    assert [key["public_key"] for key in anybody.json()["keys"]] == [made["public_key"]]
    rotated = http.post(f"/v1/webhook_endpoints/{made['id']}/rotate_secret", json={"overlap_s": 60}).json()
    both = httpx.get(f"{api.url}/.well-known/webhook-keys/{made['id']}", trust_env=False).json()["keys"]
    assert [key["public_key"] for key in both] == [rotated["public_key"], made["public_key"]]
    http.post("/v1/test_helpers/clock", json={"advance_s": 61})
    later = httpx.get(f"{api.url}/.well-known/webhook-keys/{made['id']}", trust_env=False).json()["keys"]
    assert [key["public_key"] for key in later] == [rotated["public_key"]]
    symmetric = make(http)
    assert httpx.get(f"{api.url}/.well-known/webhook-keys/{symmetric['id']}", trust_env=False).status_code == 404


def test_events_about_an_endpoint_hold_no_secret(http: httpx.Client) -> None:
    """Neither its secret nor its headers go out to whoever listens."""
    made = make(http, headers={"X-Token": "opensesame"})
    http.patch(f"/v1/webhook_endpoints/{made['id']}", json={"description": "x"})
    http.post(f"/v1/webhook_endpoints/{made['id']}/rotate_secret")
    feed = http.get("/v1/events", params={"type": "webhook_endpoint.*"})
    assert [event["type"] for event in feed.json()["data"]] == [
        "webhook_endpoint.created",
        "webhook_endpoint.updated",
        "webhook_endpoint.updated",
    ]
    assert [event["sequence"] for event in feed.json()["data"]] == [1, 2, 3]
    assert "opensesame" not in feed.text
    assert "whsec_" not in feed.text
    assert "headers" not in feed.json()["data"][0]["data"]


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1/", "http://169.254.169.254/latest", "ftp://example.com/", "http://[::ffff:10.0.0.1]/", "nonsense",
     "http://user:pass@127.0.0.1/", "http://0x0a000001/", "http://127.0.0.1:0/", "//127.0.0.1/"],
)  # fmt: skip
def test_refused_targets_are_422(url: str, http: httpx.Client) -> None:
    """A target that may not be called is refused at create and at change, with `param: url` (wire.md)."""
    answer = http.post("/v1/webhook_endpoints", json={"url": url, "events": ["*"]})
    assert (answer.status_code, answer.json()["param"]) == (422, "url"), answer.text
    changed = http.patch(f"/v1/webhook_endpoints/{make(http)['id']}", json={"url": url})
    assert (changed.status_code, changed.json()["param"]) == (422, "url")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "x"},
        {"Webhook-Id": "x"},
        {"content-length": "1"},
        {"X Y": "1"},
        {"X": "a\r\nB: c"},
        {"X": "é"},
        {"": "x"},
    ],
)
def test_headers_that_are_ours_or_none_are_refused(headers: dict[str, str], http: httpx.Client) -> None:
    """Custom headers stand beside ours, never over them, and can split no request."""
    answer = http.post("/v1/webhook_endpoints", json={"url": URL, "events": ["*"], "headers": headers})
    assert (answer.status_code, answer.json()["param"]) == (422, "headers")


def test_a_change_sets_what_is_given_and_no_more(http: httpx.Client) -> None:
    """PATCH leaves out what it leaves out; the same again changes nothing and tells nobody; null clears (C-11's manner)."""
    made = make(http, description="one", rate_per_s=5, headers={"X": "y"})
    path = f"/v1/webhook_endpoints/{made['id']}"
    changed = http.patch(path, json={"description": "two", "headers": {"X": "y"}}).json()
    assert changed["version"] == 2
    assert {name for name in changed if changed[name] != made.get(name)} == {"description", "version", "updated_at"}
    assert http.patch(path, json={"description": "two", "headers": {"X": "y"}}).json() == changed
    assert http.patch(path, json={}).json() == changed
    cleared = http.patch(path, json={"rate_per_s": None, "headers": None}).json()
    assert (cleared["rate_per_s"], cleared["headers"], cleared["version"]) == (None, None, 3)
    told = http.get("/v1/events", params={"type": "webhook_endpoint.updated"}).json()["data"]
    assert [event["sequence"] for event in told] == [2, 3]
    assert http.patch(path, json={"signature": "v1a"}).status_code == 422
    assert http.patch(path, json={"status": "enabled"}).status_code == 422


def test_a_stale_version_is_409(http: httpx.Client) -> None:
    """If-Match names the version last seen; another one by now is `version_conflict`, and nonsense is 400."""
    made = make(http)
    path = f"/v1/webhook_endpoints/{made['id']}"
    assert http.patch(path, json={"description": "a"}, headers={"If-Match": '"1"'}).status_code == 200
    stale = http.patch(path, json={"description": "b"}, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (409, "version_conflict")
    odd = http.patch(path, json={"description": "b"}, headers={"If-Match": "yesterday"})
    assert (odd.status_code, odd.json()["code"]) == (400, "invalid_if_match")
    assert http.get(path).json()["description"] == "a"


async def test_concurrent_changes_have_one_winner(org: Organisation) -> None:
    """Of ten changes of one version, one is made and nine are told (409)."""
    async with org.test.async_client() as http:
        made = (await http.post("/v1/webhook_endpoints", json={"url": URL, "events": ["*"]})).json()
        answers = await asyncio.gather(
            *(
                http.patch(
                    f"/v1/webhook_endpoints/{made['id']}", json={"description": str(n)}, headers={"If-Match": '"1"'}
                )
                for n in range(10)
            )
        )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9


def deliver(api: Api, org: Organisation, endpoint_id: str, *accepted: str) -> None:
    """Open deliveries to the endpoint, as the relay makes them, of events accepted at these times."""
    for n, at in enumerate(accepted):
        run(
            api,
            "INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, due_at, accepted_at) "
            "VALUES ($1, 'dlv_01M7XZQ13PQ2QS290DBGHN95' || $5, 'evt_01M7XZQ13PQ2QS290DBGHN958X', $2, $3, now(), $4::text::timestamptz)",
            org.test.workspace_id,
            "order.paid",
            endpoint_id,
            at,
            f"{n:02}",
        )


def states(http: httpx.Client, endpoint_id: str) -> list[tuple[str, str | None]]:
    """State and reason of the endpoint's deliveries, oldest first."""
    found = http.get("/v1/deliveries", params={"endpoint_id": endpoint_id}).json()["data"]
    return [(row["status"], row["reason"]) for row in reversed(found)]


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"held": "all"}, [("pending", None), ("pending", None)]),
        ({}, [("pending", None), ("pending", None)]),
        ({"held": "none"}, [("dead", "held_discarded"), ("dead", "held_discarded")]),
        ({"held": "since", "since": "2026-01-02T00:00:00Z"}, [("dead", "held_discarded"), ("pending", None)]),
    ],
    ids=["all", "default", "none", "since"],
)
def test_disabled_is_held_and_enabling_says_what_becomes_of_it(
    held: dict[str, str], expected: list[tuple[str, str | None]], http: httpx.Client, api: Api, org: Organisation
) -> None:
    """Deliveries of a disabled endpoint are held, not dropped; enabling delivers all, none, or those since a time (promise 4)."""
    made = make(http)
    path = f"/v1/webhook_endpoints/{made['id']}"
    deliver(api, org, made["id"], "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    disabled = http.patch(path, json={"status": "disabled"}).json()
    assert (disabled["status"], disabled["disabled_reason"]) == ("disabled", "by_caller")
    assert disabled["disabled_at"]
    assert states(http, made["id"]) == [("held", None), ("held", None)]
    enabled = http.post(f"{path}/enable", json=held).json()
    assert (enabled["status"], enabled["disabled_reason"], enabled["disabled_at"]) == ("enabled", None, None)
    assert states(http, made["id"]) == expected
    again = http.post(f"{path}/enable", json=held)
    assert (again.status_code, again.json()["code"]) == (409, "illegal_transition")
    told = http.get("/v1/events", params={"type": "webhook_endpoint.*"}).json()["data"]
    assert [event["type"].partition(".")[2] for event in told] == ["created", "disabled", "updated"]
    run(api, "DELETE FROM spine.deliveries_open")
    run(api, "DELETE FROM spine.deliveries_closed")


def test_a_deleted_endpoint_is_gone(http: httpx.Client, api: Api, org: Organisation) -> None:
    """After DELETE it is 404 everywhere, its waiting deliveries stand in the dead letters, its history stays."""
    made = make(http)
    path = f"/v1/webhook_endpoints/{made['id']}"
    deliver(api, org, made["id"], "2026-01-01T00:00:00Z")
    assert http.delete(path).json() == {"id": made["id"], "object": "webhook_endpoint", "deleted": True}
    for answer in (
        http.get(path),
        http.patch(path, json={"description": "x"}),
        http.delete(path),
        http.post(f"{path}/enable"),
        http.post(f"{path}/rotate_secret"),
        http.post(f"{path}/test"),
        http.post(f"{path}/replay_missing", json={"since": "2026-01-01T00:00:00Z"}),
    ):
        assert answer.status_code == 404
    assert http.get("/v1/webhook_endpoints").json()["data"] == []
    assert states(http, made["id"]) == [("dead", "endpoint_deleted")]
    live = run(api, "SELECT * FROM spine.subscriptions WHERE endpoint_id = $1 AND valid_to = 'infinity'", made["id"])
    assert live == []
    run(api, "DELETE FROM spine.deliveries_closed")


def test_patterns_hold_from_their_change_on(http: httpx.Client, api: Api) -> None:
    """What an endpoint listened to when an event was accepted is kept, so that a change never rewrites the past."""
    made = make(http, events=["order.paid", "stock.*", "stock.*"])
    http.patch(f"/v1/webhook_endpoints/{made['id']}", json={"events": ["order.paid", "*"]})
    kept = run(
        api,
        "SELECT pattern, valid_to = 'infinity' AS now FROM spine.subscriptions WHERE endpoint_id = $1 ORDER BY pattern",
        made["id"],
    )
    assert [(row["pattern"], row["now"]) for row in kept] == [("*", True), ("order.paid", True), ("stock.*", False)]


@pytest.mark.parametrize("pattern", ["order.*.paid", "*.paid", "Order.paid", "order.", "**", "", "order*"])
def test_odd_patterns_are_refused(pattern: str, http: httpx.Client) -> None:
    """Patterns are exact, a family, or all; nothing else."""
    answer = http.post("/v1/webhook_endpoints", json={"url": URL, "events": [pattern]})
    assert (answer.status_code, answer.json()["param"]) == (422, "events.0")


def test_rotation_keeps_the_old_secret_for_its_overlap(http: httpx.Client, api: Api) -> None:
    """Two secrets are in force until the overlap ends; with none the old one ends at once."""
    made = make(http)
    path = f"/v1/webhook_endpoints/{made['id']}/rotate_secret"
    in_force = "SELECT count(*) FROM spine.endpoint_secrets WHERE endpoint_id = $1 AND (expires_at IS NULL OR expires_at > now())"
    rotated = http.post(path).json()
    assert rotated["secret"] != made["secret"]
    assert rotated["version"] == 2
    assert run(api, in_force, made["id"])[0][0] == 2
    http.post("/v1/test_helpers/clock", json={"advance_s": 24 * 3600 + 1})
    assert run(api, in_force, made["id"])[0][0] == 1
    http.post(path, json={"overlap_s": 0})
    assert run(api, in_force, made["id"])[0][0] == 1
    for overlap_s in (-1, 7 * 24 * 3600 + 1):
        assert http.post(path, json={"overlap_s": overlap_s}).status_code == 422


def test_a_test_event_goes_to_this_endpoint_only(http: httpx.Client, api: Api) -> None:
    """The answer is the delivery; the event is an example of the type asked for, and others never get it."""
    made, _ = make(http, events=["*"]), make(http, events=["*"])
    run(api, "DELETE FROM spine.outbox")
    path = f"/v1/webhook_endpoints/{made['id']}/test"
    own = http.post("/v1/event_types", json={"name": "order.paid", "schema": {"properties": {"n": {"const": 7}}}})
    assert own.status_code == 201
    run(api, "DELETE FROM spine.outbox")
    for type, data in (("webhook_endpoint.test", None), ("user.created", None), ("order.paid", {"n": 7})):
        delivery = http.post(path, json={"type": type}).json()
        assert (delivery["endpoint_id"], delivery["event_type"], delivery["status"]) == (made["id"], type, "pending")
        event = http.get(f"/v1/events/{delivery['event_id']}").json()
        assert data is None or event["data"] == data
        assert run(api, "SELECT count(*) FROM spine.deliveries_open WHERE event_id = $1", event["id"])[0][0] == 1
    assert run(api, "SELECT count(*) FROM spine.outbox")[0][0] == 0
    unknown = http.post(path, json={"type": "nobody.knows"})
    assert (unknown.status_code, unknown.json()["param"]) == (422, "type")
    http.patch(f"/v1/webhook_endpoints/{made['id']}", json={"status": "disabled"})
    disabled = http.post(path)
    assert (disabled.status_code, disabled.json()["code"]) == (409, "endpoint_disabled")
    run(api, "DELETE FROM spine.deliveries_open")


def test_a_test_event_has_a_budget(http: httpx.Client, api: Api) -> None:
    """A schema below 1 KB wrote an event of 106 MB. Now its example is small, or the answer says how to mend it."""
    made = make(http, events=["*"])
    path = f"/v1/webhook_endpoints/{made['id']}/test"
    names = [f"p{n}" for n in range(25)]
    itself = {"type": "object", "properties": {name: {"$ref": "#"} for name in names}}
    deep = {
        f"d{level}": {"properties": {name: {"$ref": f"#/$defs/d{level + 1}"} for name in names}, "required": names}
        for level in range(7)
    }
    schemas = {
        "big.itself": itself,
        "big.endless": itself | {"required": names},
        "big.deep": {"$ref": "#/$defs/d0", "$defs": deep | {"d7": {"type": "string"}}},
        "big.text": {"properties": {"text": {"type": "string", "minLength": 300_000}}, "required": ["text"]},
    }
    for name, schema in schemas.items():
        assert http.post("/v1/event_types", json={"name": name, "schema": schema}).status_code == 201
    delivery = http.post(path, json={"type": "big.itself"}).json()
    assert http.get(f"/v1/events/{delivery['event_id']}").json()["data"] == {}
    for name in ("big.endless", "big.deep", "big.text"):
        refused = http.post(path, json={"type": name})
        assert (refused.status_code, refused.json()["code"]) == (422, "example_too_large"), name
        assert "examples" in refused.json()["detail"]
    catalogue = {entry["name"]: entry["example"] for entry in http.get("/v1/events/types").json()["data"]}
    assert [catalogue[name] for name in schemas] == [{}, None, None, None]
    assert run(api, "SELECT count(*) FROM spine.events WHERE type LIKE 'big.%'")[0][0] == 1
    run(api, "DELETE FROM spine.deliveries_open")


def test_live_endpoints_take_https_only(live_http: httpx.Client) -> None:
    """https is required of live endpoints outside the ranges that an operator opened (promise 6)."""
    answer = live_http.post("/v1/webhook_endpoints", json={"url": "http://93.184.216.34/", "events": ["*"]})
    assert (answer.status_code, answer.json()["param"]) == (422, "url")


async def test_a_workspace_has_a_limited_number_of_endpoints(api: Api) -> None:
    """Of concurrent creations as many succeed as there may be; the others are told what to do. A deleted endpoint makes room."""
    body = {"url": "http://127.0.0.1:9/", "events": ["order.paid"]}
    with serve(api.database_url, api.redis_url, SPINE_MAX_ENDPOINTS="3") as limited:
        org = limited.sign_up()
        async with org.test.async_client() as http:
            answers = await asyncio.gather(*(http.post("/v1/webhook_endpoints", json=body) for _ in range(8)))
            assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
            refused = next(answer.json() for answer in answers if answer.status_code == 409)
            assert refused["code"] == "endpoint_limit_reached"
            assert "SPINE_MAX_ENDPOINTS" in refused["detail"]
            made = next(answer.json()["id"] for answer in answers if answer.status_code == 201)
            assert (await http.delete(f"/v1/webhook_endpoints/{made}")).status_code == 200
            assert (await http.post("/v1/webhook_endpoints", json=body)).status_code == 201
        async with org.live.async_client() as http:  # another workspace has its own limit
            live = await http.post("/v1/webhook_endpoints", json=body | {"url": "https://127.0.0.1:9/"})
            assert live.status_code == 201
