"""The suite on a running installation: the story of `spine demo`, and the calls that the developer pages print."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import pytest

from spine.cli.api import Api
from spine.cli.demo.command import EXPECTED
from spine.cli.demo.receiver import WebhookReceiver
from spine.cli.demo.scene import Scene, set_scene
from tests.e2e.installation import ROOT, Up, environment, up

PRINTED: Final = {
    "crm": (
        """curl -X POST https://api.softknack.com/crm/v1/leads \\
  -H "Authorization: Bearer sk_test_..." \\
  -H "Idempotency-Key: 9f2c-...-d41a" \\
  -H "Content-Type: application/json" \\
  -d '{
    "contact": { "name": "Priya Raghavan", "phone": "+91XXXXXXXXXX" },
    "source": "website",
    "interests": [{ "catalog_item_id": "itm_01J9X...", "note": "1.5T split AC" }]
  }'""",
        "ld",
        "lead.created",
    ),
    "works": (
        """curl -X POST https://api.softknack.com/works/v1/projects \\
  -H "Authorization: Bearer sk_live_..." -H "Idempotency-Key: 9f2c-4d1a-...-e7b3" -H "Content-Type: application/json" \\
  -d '{ "deal_id": "dl_01J9X...", "name": "Site fit-out", "owner_id": "usr_01J9X...", "template": "fitout_v2" }'""",
        "prj",
        "project.created",
    ),
    "tickets": (
        """curl -X POST https://api.softknack.com/tickets/v1/tickets \\
  -H "Authorization: Bearer sk_live_..." -H "Idempotency-Key: 9f2c-4d1a-...-e7b4" -H "Content-Type: application/json" \\
  -d '{ "contact_id": "ctc_01J9X...", "subject": "Part delayed", "source": "voice", "call_id": "cal_01J9X..." }'""",
        "tkt",
        "ticket.created",
    ),
    "notifications": (
        """curl -X POST https://api.softknack.com/notifications/v1/messages \\
  -H "Authorization: Bearer sk_live_..." -H "Idempotency-Key: 9f2c-4d1a-...-e7b5" -H "Content-Type: application/json" \\
  -d '{ "contact_id": "ctc_01J9X...", "template": "appt_reminder", "channels": ["whatsapp", "sms"], "vars": { "time": "5:00 PM" } }'""",
        "msg",
        "message.created",
    ),
    "calendar": (
        """curl -X POST https://api.softknack.com/calendar/v1/appointments \\
  -H "Authorization: Bearer sk_live_..." -H "Idempotency-Key: 9f2c-4d1a-...-e7b6" -H "Content-Type: application/json" \\
  -d '{ "slot_id": "slt_01J9X...", "contact_id": "ctc_01J9X...", "service": "ac_service" }'""",
        "apt",
        "appointment.created",
    ),
}
"""The call of each developer page, the prefix of the id that it answers, and the event that follows."""


WORTH: Final = {"value_minor": 100_00, "currency": "INR"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An installation that the tests of this module share."""
    with up(tmp_path_factory.mktemp("demo") / "data", (sys.executable, "-m", "spine.supervisor")) as made:
        yield made


@pytest.mark.timeout(240)
def test_the_story_runs_twice_in_one_workspace(running: Up) -> None:
    """Every act ends as it must, over REST, hosted pages and MCP; each of its events arrives, verified; so does a second run."""
    for _ in range(2):
        done = subprocess.run(
            (sys.executable, "-m", "spine.cli", "demo", "--json"),
            env=os.environ | environment(running.directory, running.port),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert {step["door"] for step in told["steps"]} == {"REST", "MCP", "page", "clock"}
        assert set(EXPECTED) <= set(told["webhooks"])
        assert told["refused"] == 0


def _signed_up(url: str) -> str:
    answer = httpx.post(f"{url}/v1/signup", json={"name": "Acme", "email": "dev@acme.example"}, trust_env=False)
    return str(answer.raise_for_status().json()["test"]["api_key"])


def _ids(api: Api, scene: Scene) -> dict[str, str]:
    """Make what the printed calls name. Returns what stands in the place of each elision."""
    session = api.post("/crm/v1/call_sessions", {"phone": "+910000000000", "channel": "voice"})
    call: dict[str, Any] = api.post(f"/crm/v1/call_sessions/{session['id']}/finalize", {"lead": {"source": "phone"}})
    deal = api.post(
        "/crm/v1/deals", {"contact_id": session["contact_id"], "name": "Fit-out", "stage": "proposal", **WORTH}
    )
    api.post(f"/crm/v1/deals/{deal['id']}/win")
    api.post("/works/v1/templates", {"slug": "fitout_v2", "milestones": [{"name": "Done"}], "tasks": []})
    bodies = {"whatsapp": "See you at {{ time }}.", "sms": "See you at {{ time }}."}
    api.post("/notifications/v1/templates", {"slug": "appt_reminder", "bodies": bodies, "required_vars": ["time"]})
    api.post("/calendar/v1/services", {"slug": "ac_service", "name": "AC service", "duration_min": 30})
    resource = api.post("/calendar/v1/resources", {"name": "Ravi", "time_zone": "Asia/Kolkata"})
    start = datetime.now(UTC) + timedelta(days=3)
    times = {"starts_at": start.isoformat(), "ends_at": (start + timedelta(hours=1)).isoformat()}
    slots = api.post("/calendar/v1/slots", {"slots": [{"resource_id": resource["id"], "capacity": 1, **times}]})
    return {
        "itm_01J9X...": scene.item_id,
        "dl_01J9X...": deal["id"],
        "usr_01J9X...": scene.owner_id,
        "ctc_01J9X...": session["contact_id"],
        "cal_01J9X...": call["call_id"],
        "slt_01J9X...": slots["data"][0]["id"],
        "+91XXXXXXXXXX": "+919876543210",
    }


@pytest.mark.timeout(120)
def test_the_printed_calls_answer_201_and_their_events_arrive(running: Up) -> None:
    """Each printed curl, with a test key and real ids in its gaps, answers 201 with the right prefix; its event arrives, verified."""
    url = f"http://127.0.0.1:{running.port}"
    key = _signed_up(url)
    api, receiver = Api(url, key), WebhookReceiver()
    receiver.start()
    try:
        scene = set_scene(api, datetime.now(UTC))
        ids = _ids(api, scene)
        endpoint = api.post("/v1/webhook_endpoints", {"url": receiver.url, "events": ["*"]})
        receiver.trust(endpoint["secret"])
        made: dict[str, str] = {}
        for printed, prefix, event in PRINTED.values():
            call = printed.replace("https://api.softknack.com", url)
            call = call.replace("sk_live_...", key).replace("sk_test_...", key)
            for gap, id in ids.items():
                call = call.replace(gap, id)
            done = subprocess.run(
                ["bash", "-c", call.replace("curl ", "curl -s -w '\\n%{http_code}' ")],
                capture_output=True, text=True, timeout=30, check=True,
            )  # fmt: skip
            body, status = done.stdout.rsplit("\n", 1)
            assert status == "201", body
            made[event] = json.loads(body)["id"]
            assert made[event].startswith(f"{prefix}_")
        assert receiver.wait_for(made, 30) == set()
        arrived = {(event["type"], event["data"]["id"]) for event in receiver.events}
        assert set(made.items()) <= arrived
    finally:
        receiver.close()
        api.close()
