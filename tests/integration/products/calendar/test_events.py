"""Every mutation of the calendar emits the events that its operation declares, as the webhooks section describes them."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import httpx
import pytest

from tests.api import Api, Organisation
from tests.booking import HOUR, Calendar, days_ahead
from tests.contract.specification import AUTHENTICATED
from tests.integration.products.test_events_emitted import event_bodies, validate
from tests.job_engine import job_runner

START: Final = days_ahead(3)
MUTATIONS: Final = {
    str(operation): operation
    for operation in AUTHENTICATED
    if operation.mutating and operation.path.startswith("/calendar/")
}
NOTICES: Final = ("message.", "template.")
"""Events of the notices that some calls send."""


def _service(calendar: Calendar) -> str:
    made = calendar.post("services", {"slug": "massage", "name": "Massage", "duration_min": 30})
    return str(made["id"])


def _page(calendar: Calendar) -> dict[str, Any]:
    calendar.service("ac_service")
    return {"slug": "events", "brand": {"name": "Acme"}, "services": ["ac_service"]}


def _appointment(calendar: Calendar) -> str:
    return str(calendar.book(calendar.slot())["id"])


def _past_appointment(calendar: Calendar) -> str:
    id = _appointment(calendar)
    calendar.pass_time(timedelta(days=9))
    return id


def _entry(calendar: Calendar) -> dict[str, Any]:
    window = {"from": START.isoformat(), "to": (START + HOUR).isoformat()}
    return {"service": calendar.service("ac_service"), "contact_id": calendar.contact(), "window": window}


def _offered(calendar: Calendar) -> str:
    """An entry that a released slot will be offered to, as soon as jobs run."""
    entry = calendar.post("waitlist_entries", _entry(calendar))
    made = calendar.book(calendar.slot(service="ac_service"))
    calendar.post(f"appointments/{made['id']}/cancel", {"reason": "rain"}, status=200)
    return str(entry["id"])


def _slot(calendar: Calendar) -> dict[str, Any]:
    times = {"starts_at": START.isoformat(), "ends_at": (START + HOUR).isoformat()}
    return {"slots": [{"resource_id": calendar.resource(), **times}]}


Body = Callable[[Calendar], dict[str, Any]]
BODIES: Final[dict[str, Body]] = {
    "POST /calendar/v1/resources": lambda _: {"name": "Ravi"},
    "PATCH /calendar/v1/resources/{id}": lambda _: {"name": "Asha"},
    "POST /calendar/v1/services": lambda _: {"slug": "new", "name": "New", "duration_min": 30},
    "PATCH /calendar/v1/services/{id}": lambda _: {"buffer_min": 5},
    "POST /calendar/v1/slots": _slot,
    "PATCH /calendar/v1/slots/{id}": lambda _: {"capacity": 4},
    "POST /calendar/v1/appointments": lambda calendar: {"slot_id": calendar.slot(), "contact_id": calendar.contact()},
    "POST /calendar/v1/appointments/{id}/reschedule": lambda calendar: {"slot_id": calendar.slot()},
    "POST /calendar/v1/appointments/{id}/cancel": lambda _: {"reason": "rain"},
    "POST /calendar/v1/waitlist_entries": _entry,
    "POST /calendar/v1/booking_pages": _page,
    "PATCH /calendar/v1/booking_pages/{id}": lambda _: {"status": "disabled"},
}
SUBJECTS: Final[dict[str, Callable[[Calendar], str]]] = {
    "PATCH /calendar/v1/resources/{id}": lambda calendar: calendar.resource(),
    "PATCH /calendar/v1/services/{id}": _service,
    "PATCH /calendar/v1/slots/{id}": lambda calendar: calendar.slot(),
    "POST /calendar/v1/slots/{id}/close": lambda calendar: calendar.slot(),
    "POST /calendar/v1/appointments/{id}/reschedule": _appointment,
    "POST /calendar/v1/appointments/{id}/cancel": _appointment,
    "POST /calendar/v1/appointments/{id}/complete": _past_appointment,
    "POST /calendar/v1/appointments/{id}/no_show": _past_appointment,
    "POST /calendar/v1/waitlist_entries/{id}/claim": _offered,
    "POST /calendar/v1/waitlist_entries/{id}/withdraw": _offered,
    "PATCH /calendar/v1/booking_pages/{id}": lambda calendar: str(
        calendar.post("booking_pages", _page(calendar) | {"slug": "changed"})["id"]
    ),
}
"""What an operation with an id works on."""


def _run_jobs(api: Api) -> None:
    async def run() -> None:
        async with job_runner(api) as runner:
            while await runner.run_due():
                pass

    asyncio.run(run())


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_emits_what_it_declares(name: str, api: Api, org: Organisation, http: httpx.Client) -> None:
    """The transaction of a call emits every event that the operation declares, and no other; repeated, none (P-04, X1)."""
    calendar, operation = Calendar(http), MUTATIONS[name]
    id = SUBJECTS[name](calendar) if operation.of_one else ""
    _run_jobs(api)
    body = BODIES[name](calendar) if name in BODIES else {}
    path, key = operation.path.replace("{id}", id), {"Idempotency-Key": "once"}
    answers = [http.request(operation.method, path, json=body, headers=key) for _ in range(2)]
    assert {answer.status_code for answer in answers} <= {200, 201}, answers[0].text
    assert answers[0].content == answers[1].content
    bodies = event_bodies(api, org.test.workspace_id)
    request_id = answers[0].headers["request-id"]
    emitted = [one for one in bodies if one["request_id"] == request_id and not one["type"].startswith(NOTICES)]
    assert sorted(one["type"] for one in emitted) == sorted(operation.spec["x-events"])
    assert [one for one in bodies if one["request_id"] == answers[1].headers["request-id"]] == []
    for one in emitted:
        validate(one)


def test_system_events_are_as_described(http: httpx.Client, api: Api, org: Organisation) -> None:
    """The events of jobs, too, are as the webhooks section describes them, and are emitted by the system."""
    calendar = Calendar(http)
    _offered(calendar)

    _run_jobs(api)
    calendar.pass_time(timedelta(hours=1))
    _run_jobs(api)
    mine = [one for one in event_bodies(api, org.test.workspace_id) if one["type"].startswith("waitlist.")]
    assert [one["type"] for one in mine] == ["waitlist.joined", "waitlist.offered", "waitlist.expired"]
    for one in mine:
        validate(one)
    assert [one["actor"]["type"] for one in mine] == ["api_key", "system", "system"]
