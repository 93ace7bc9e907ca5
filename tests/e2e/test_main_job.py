"""The main use case in a whole installation: calls over HTTP, and receivers that verify with public libraries."""

import sys
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook
from svix.webhooks import Webhook as SvixWebhook

from tests.api import client
from tests.e2e.installation import Up, until, up

SCHEDULE_S = (1, 4, 16, 60, 300, 1800, 7200)


class Subscriber:
    """Receives webhooks, verifies them with two public libraries, and responds with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.secret = ""
        self.received: list[tuple[str, bytes, dict[str, Any]]] = []
        subscriber = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = dict(self.headers)
                if subscriber.secret:
                    event: Any = Webhook(subscriber.secret).verify(body, headers)
                    SvixWebhook(subscriber.secret).verify(
                        body, {name.lower(): value for name, value in headers.items()}
                    )
                    subscriber.received.append((headers["webhook-id"], body, event))
                self.send_response(subscriber.status)
                self.end_headers()
                self.wfile.write(b"no" if subscriber.status != 200 else b"yes")

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def types(self) -> list[str]:
        """Return the types of the received events."""
        return [event["type"] for _, _, event in self.received]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One installation for this module."""
    with up(
        tmp_path_factory.mktemp("main") / "data", (sys.executable, "-m", "spine.supervisor"), SPINE_WORKERS="2"
    ) as running:
        yield running


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    """A receiver."""
    made = Subscriber()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def api(installation: Up) -> Iterator[httpx.Client]:
    """A client with the test key of a new organisation."""
    url = f"http://127.0.0.1:{installation.port}"
    made = httpx.post(f"{url}/v1/signup", json={"name": "Acme", "email": "dev@acme.example"}).raise_for_status().json()
    with client(url, made["test"]["api_key"]) as ours:
        yield ours


def _endpoint(api: httpx.Client, subscriber: Subscriber, *events: str) -> str:
    made = (
        api.post("/v1/webhook_endpoints", json={"url": subscriber.url, "events": list(events)})
        .raise_for_status()
        .json()
    )
    subscriber.secret = made["secret"]
    return str(made["id"])


def test_a_message_goes_in_and_signed_webhooks_come_out(api: httpx.Client, subscriber: Subscriber) -> None:
    """The curl of the developer page returns 201, and within 5 s a receiver has verified created, sent and delivered."""
    _endpoint(api, subscriber, "message.*")
    contact = (
        api.post("/crm/v1/contacts", json={"name": "Priya Raghavan", "phone": "+910000000000"})
        .raise_for_status()
        .json()
    )
    template = {
        "slug": "appt_reminder",
        "locale": "en",
        "required_vars": ["time"],
        "bodies": {"whatsapp": "See you at {{ time }}.", "sms": "See you at {{ time }}."},
    }
    api.post("/notifications/v1/templates", json=template).raise_for_status()
    message = {
        "contact_id": contact["id"],
        "template": "appt_reminder",
        "channels": ["whatsapp", "sms"],
        "vars": {"time": "5:00 PM"},
    }
    answer = api.post("/notifications/v1/messages", json=message)
    assert answer.status_code == 201
    assert answer.json()["status"] == "queued"
    assert answer.headers["Location"].endswith(answer.json()["id"])
    until(lambda: {"message.created", "message.sent", "message.delivered"} <= set(subscriber.types()), 5)
    assert {event["data"]["id"] for _, _, event in subscriber.received} == {answer.json()["id"]}
    shown = api.get(f"/notifications/v1/messages/{answer.json()['id']}").json()
    assert shown["status"] == "delivered"
    assert shown["receipt"]["supported"] is True


def test_eight_failures_are_a_dead_letter_and_its_replay_is_the_same_event(
    api: httpx.Client, subscriber: Subscriber
) -> None:
    """A failing receiver is called eight times on the schedule, then the delivery is dead with its reason. A replay has
    the same id and the same bytes.
    """
    subscriber.status = 500
    endpoint = _endpoint(api, subscriber, "order.paid")
    event = api.post("/v1/events", json={"type": "order.paid", "data": {"total": 42}}).raise_for_status().json()
    for number, wait_s in enumerate(SCHEDULE_S, start=1):
        until(lambda number=number: len(_attempts(api, event["id"])) == number, 15)  # type: ignore[misc]  # bound at once
        last = _attempts(api, event["id"])[-1]
        assert _seconds(last["ended_at"], last["next_attempt_at"]) == pytest.approx(wait_s, abs=0.001)
        api.post("/v1/test_helpers/clock", json={"advance_s": wait_s}).raise_for_status()
    until(lambda: _delivery(api, event["id"])["status"] == "dead", 15)
    dead_letters = api.get("/v1/dead_letters", params={"endpoint_id": endpoint}).json()["data"]
    assert [
        (one["reason"], one["last_status_code"], one["last_response_body"], one["attempts"]) for one in dead_letters
    ] == [("attempts_exhausted", 500, "no", 8)]
    subscriber.status = 200
    api.post(f"/v1/deliveries/{dead_letters[0]['delivery_id']}/replay").raise_for_status()
    until(lambda: _delivery(api, event["id"])["status"] == "delivered", 15)
    assert len(subscriber.received) == 9
    assert {(id, body) for id, body, _ in subscriber.received} == {(event["id"], subscriber.received[0][1])}


def test_a_disabled_endpoint_loses_nothing(api: httpx.Client, subscriber: Subscriber) -> None:
    """Events accepted while an endpoint is disabled are held, and delivered when it is enabled again."""
    endpoint = _endpoint(api, subscriber, "order.paid")
    api.patch(f"/v1/webhook_endpoints/{endpoint}", json={"status": "disabled"}).raise_for_status()
    event = api.post("/v1/events", json={"type": "order.paid", "data": {}}).raise_for_status().json()
    until(lambda: _delivery(api, event["id"]).get("status") == "held", 15)
    assert subscriber.received == []
    api.post(f"/v1/webhook_endpoints/{endpoint}/enable", json={"held": "all"}).raise_for_status()
    until(lambda: [id for id, _, _ in subscriber.received] == [event["id"]], 15)


def test_missed_events_are_sent_once(api: httpx.Client, subscriber: Subscriber) -> None:
    """A new endpoint gets earlier events by replay_missing, each of them once, even if it is called twice."""
    start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    events = [
        api.post("/v1/events", json={"type": "order.paid", "data": {"n": n}}).raise_for_status().json()["id"]
        for n in range(3)
    ]
    endpoint = _endpoint(api, subscriber, "order.paid")
    for _ in range(2):
        replay = (
            api.post(f"/v1/webhook_endpoints/{endpoint}/replay_missing", json={"since": start})
            .raise_for_status()
            .json()
        )
        until(lambda replay=replay: api.get(f"/v1/replays/{replay['id']}").json()["status"] == "done", 15)  # type: ignore[misc]  # likewise
    assert sorted(id for id, _, _ in subscriber.received) == sorted(events)


def _delivery(api: httpx.Client, event_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = api.get("/v1/deliveries", params={"event_id": event_id}).json()["data"]
    return found[0] if found else {}


def _attempts(api: httpx.Client, event_id: str) -> list[dict[str, Any]]:
    attempts: list[dict[str, Any]] = _delivery(api, event_id).get("attempts", [])
    return attempts


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
