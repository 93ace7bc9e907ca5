"""Every panel has data in a real Prometheus that scraped a busy installation."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.api import client
from tests.dashboard_queries import panel_queries, rules, without_default
from tests.e2e.installation import free_port, up
from tests.prometheus import scraping, wait_for_data

# A healthy installation has no responses with status 5xx, and an installation of test workspaces no real providers.
_ABSENT_WHEN_HEALTHY = (
    'status=~"5.."',
    "spine_breaker_openings_total",
    "spine_provider_callbacks_total",  # the sandbox's receipts come without HTTP
    "spine_messages_duplicate_possible_total",
    "spine_provider_cost_micros_total",
)


@contextmanager
def _receiver() -> Iterator[str]:
    """Run a receiver that responds 200 at /ok, 500 at /no and 410 at /gone."""
    statuses = {"/ok": 200, "/no": 500, "/gone": 410}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(statuses[self.path])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _traffic(url: str, receiver: str, stop: threading.Event) -> None:
    """Create delivered, failed and dead events, accepted and rejected messages, jobs, replayed and rate-limited requests."""
    made = httpx.post(f"{url}/v1/signup", json={"name": "Acme", "email": "dev@acme.example"}).raise_for_status().json()
    with client(url, made["test"]["api_key"]) as api:
        for name in ("ok", "no"):
            api.post(
                "/v1/webhook_endpoints", json={"url": f"{receiver}/{name}", "events": ["order.paid"]}
            ).raise_for_status()
        bodies = {"whatsapp": "At {{ time }}.", "sms": "At {{ time }}."}
        template = {"slug": "reminder", "locale": "en", "required_vars": ["time"], "bodies": bodies}
        api.post("/notifications/v1/templates", json=template).raise_for_status()
        owner = {"name": "Asha", "email": "asha@acme.example"}
        project = {"name": "Fit-out", "owner_id": api.post("/v1/users", json=owner).raise_for_status().json()["id"]}
        milestone = {
            "project_id": api.post("/works/v1/projects", json=project).raise_for_status().json()["id"],
            "name": "Handover",
            "billing": {"amount_minor": 100, "currency": "INR"},
        }
        n = 0
        while not stop.wait(0.2):
            n += 1
            for key in (f"event-{n}", f"event-{n}"):
                api.post("/v1/events", json={"type": "order.paid", "data": {"n": n}}, headers={"Idempotency-Key": key})
            for to in ("+910000000000", "+910000000330"):
                message = {
                    "to": to,
                    "template": "reminder",
                    "channels": ["whatsapp", "sms"],
                    "vars": {"time": "5:00 PM"},
                }
                api.post("/notifications/v1/messages", json=message)
            if n % 5 == 0:
                reached = api.post("/works/v1/milestones", json=milestone | {"position": n}).json().get("id")  # or 429
                api.post(f"/works/v1/milestones/{reached}/reach", json={})
                gone = {"url": f"{receiver}/gone", "events": ["order.lost"]}
                api.post("/v1/webhook_endpoints", json=gone)
                api.post("/v1/events", json={"type": "order.lost", "data": {}})
                api.post("/v1/test_helpers/clock", json={"advance_s": 8000})
            if n % 40 == 0:
                for _ in range(400):
                    api.get("/v1/users")


@pytest.mark.timeout(400)
def test_every_panel_has_data_from_a_running_installation(tmp_path: Path) -> None:
    """Each query of each board, and each recording rule, returns a finite value from the metrics of real processes."""
    metrics_port = free_port()
    command = (sys.executable, "-m", "spine.supervisor")
    settings = {"SPINE_METRICS_PORT": str(metrics_port), "SPINE_RATE_LIMIT_REQUESTS": "1500"}
    with up(tmp_path / "data", command, **settings) as running, _receiver() as receiver:
        stop = threading.Event()
        traffic = threading.Thread(target=_traffic, args=(f"http://127.0.0.1:{running.port}", receiver, stop))
        traffic.start()
        try:
            queries = [*panel_queries().values(), *(rule["expr"] for rule in rules() if "record" in rule)]
            expected = [
                without_default(query) for query in queries if not any(mark in query for mark in _ABSENT_WHEN_HEALTHY)
            ]
            jobs = {"spine-api": [f"127.0.0.1:{running.port}"], "spine-worker": [f"127.0.0.1:{metrics_port}"]}
            with scraping(jobs, tmp_path) as server:
                assert wait_for_data(server, expected, within_s=120) == []
        finally:
            stop.set()
            traffic.join()
