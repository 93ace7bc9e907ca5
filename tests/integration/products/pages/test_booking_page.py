"""The booking page: it shows what is free and books with the function of every other door (K-11 to K-13)."""

import asyncio
import re
import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from tests.api import Api, Organisation
from tests.hosted_pages import RenderedForm, Salon, create, new_salon, read_form, visible_text, visitor
from tests.integration.products.test_events_emitted import event_bodies

TYPED = {"name": "Ravi Rao", "phone": "+91 98765 43211", "email": ""}
KOLKATA = ZoneInfo("Asia/Kolkata")


@pytest.fixture
def slug() -> str:
    """A slug of one test."""
    return f"salon-{secrets.token_hex(6)}"


@pytest.fixture
def salon(http: httpx.Client, slug: str) -> Salon:
    """An active page with three free slots."""
    return new_salon(http, slug)


@pytest.fixture
def anybody(api: Api) -> Iterator[httpx.Client]:
    """A visitor."""
    with visitor(api.url) as made:
        yield made


def open_page(anybody: httpx.Client, slug: str, **query: str) -> RenderedForm:
    """Return the form of the page."""
    answer = anybody.get(f"/b/{slug}", params=query)
    assert answer.status_code == 200, answer.text
    return read_form(answer)


def appointments(http: httpx.Client) -> list[dict[str, Any]]:
    """All appointments of the workspace."""
    found: list[dict[str, Any]] = http.get("/calendar/v1/appointments").json()["data"]
    return found


def test_a_page_is_live_at_once_with_what_is_free(salon: Salon, slug: str, anybody: httpx.Client) -> None:
    """The created page's `url` answers at once, with the free times by day in the resource's zone, which is named (K-12)."""
    assert salon.page["url"].endswith(f"/b/{slug}")
    answer = anybody.get(f"/b/{slug}")
    assert read_form(answer).choices["slot"] == salon.slot_ids
    text = visible_text(answer)
    assert "Cool Air" in text
    assert "AC service" in text
    assert "Asia/Kolkata, UTC+05:30" in text
    start = salon.starts[0].astimezone(KOLKATA)
    assert f"{start:%A} {start.day} {start:%B} {start.year}" in text
    assert "17:30" in text
    assert f'datetime="{start.isoformat()}"' in answer.text
    assert "set-cookie" not in answer.headers


def test_a_booking_has_a_page_of_its_own(
    salon: Salon, slug: str, anybody: httpx.Client, http: httpx.Client, api: Api, org: Organisation
) -> None:
    """A booking leads to the appointment's page; it is booked via the page, by the contact that was found or made (K-05, K-11)."""
    sent = anybody.post(f"/b/{slug}", data=open_page(anybody, slug).filled(**TYPED, slot=salon.slot_ids[1]))
    assert sent.status_code == 303, visible_text(sent)
    [made] = appointments(http)
    assert (made["slot_id"], made["status"], made["booked_via"]) == (salon.slot_ids[1], "booked", "page")
    assert made["service"] == "ac_service"
    contact = http.get(f"/crm/v1/contacts/{made['contact_id']}").json()
    assert (contact["name"], contact["phone_e164"]) == ("Ravi Rao", "+919876543211")
    shown = anybody.get(sent.headers["location"])
    text = visible_text(shown)
    for part in (
        "Your appointment is booked",
        "AC service",
        "Meera",
        "19:30 – 20:30",
        "Asia/Kolkata, UTC+05:30",
        made["id"],
    ):
        assert part in text
    assert "98765" not in shown.text
    emitted = [
        event for event in event_bodies(api, org.test.workspace_id) if event["request_id"] == sent.headers["request-id"]
    ]
    assert {"contact.created", "appointment.created", "appointment.booked"} <= {event["type"] for event in emitted}
    assert {(event["actor"]["type"], event["actor"]["id"]) for event in emitted} == {("contact", contact["id"])}
    assert read_form(anybody.get(f"/b/{slug}")).choices["slot"] == [salon.slot_ids[0], salon.slot_ids[2]]


def test_a_lost_time_brings_the_page_back(salon: Salon, slug: str, anybody: httpx.Client, http: httpx.Client) -> None:
    """A time that another door took is 409, with what was typed and fresh times; no contact is left behind (K-13)."""
    filled = open_page(anybody, slug).filled(**TYPED, slot=salon.slot_ids[0])
    other = create(http, "/crm/v1/contacts", name="By phone")
    create(http, "/calendar/v1/appointments", slot_id=salon.slot_ids[0], contact_id=other["id"], service="ac_service")
    back = anybody.post(f"/b/{slug}", data=filled)
    assert back.status_code == 409
    assert "This time was taken" in visible_text(back)
    again = read_form(back)
    assert (again.fields["name"], again.fields["phone"]) == (TYPED["name"], TYPED["phone"])
    assert again.choices["slot"] == salon.slot_ids[1:]
    assert len(http.get("/crm/v1/contacts").json()["data"]) == 1
    assert anybody.post(f"/b/{slug}", data=filled).status_code == 409
    assert anybody.post(f"/b/{slug}", data=again.filled(slot=salon.slot_ids[2])).status_code == 303
    assert {one["slot_id"] for one in appointments(http)} == {salon.slot_ids[0], salon.slot_ids[2]}


def test_the_same_page_sent_twice_is_one_appointment(
    salon: Salon, slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """A rendering books once, and each repetition leads to the same page (P-05)."""
    filled = open_page(anybody, slug).filled(**TYPED, slot=salon.slot_ids[0])
    answers = [anybody.post(f"/b/{slug}", data=filled) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {303}
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert len(appointments(http)) == 1


def test_one_slot_has_one_winner_through_all_doors(
    salon: Salon, slug: str, anybody: httpx.Client, http: httpx.Client, api: Api, org: Organisation
) -> None:
    """Of 25 visitors and 25 callers of the API that race for one slot one wins, and all others get 409 (K-01, K-11, K-13)."""
    slot_id = salon.slot_ids[0]
    pages = [
        open_page(anybody, slug).filled(name=f"V{n}", phone=f"+9198765{n:05}", email="", slot=slot_id)
        for n in range(25)
    ]
    contacts = [create(http, "/crm/v1/contacts", name=f"C{n}")["id"] for n in range(25)]

    async def race() -> list[httpx.Response]:
        async with (
            httpx.AsyncClient(base_url=api.url, timeout=30, trust_env=False) as visitors,
            org.test.async_client() as callers,
        ):
            return await asyncio.gather(
                *(visitors.post(f"/b/{slug}", data=page) for page in pages),
                *(
                    callers.post(
                        "/calendar/v1/appointments",
                        json={"slot_id": slot_id, "contact_id": contact, "service": "ac_service"},
                    )
                    for contact in contacts
                ),
            )

    statuses = sorted(answer.status_code for answer in asyncio.run(race()))
    assert statuses[0] in (201, 303)
    assert statuses[1:] == [409] * 49
    assert len(appointments(http)) == 1


def test_a_visitor_chooses_among_several_services(
    salon: Salon, slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """A page with several services asks for one first; a single one is chosen already. Others than its own cannot be booked."""
    create(http, "/calendar/v1/services", slug="cleaning", name="Deep cleaning", duration_min=60)
    create(http, "/calendar/v1/services", slug="staff_only", name="Staff", duration_min=30)
    http.patch(
        f"/calendar/v1/booking_pages/{salon.page['id']}", json={"services": ["cleaning", "ac_service"]}
    ).raise_for_status()
    first = anybody.get(f"/b/{slug}")
    assert read_form(first).fields == {}
    text = visible_text(first)
    assert text.index("Deep cleaning") < text.index("AC service")
    assert f'href="/b/{slug}?service=ac_service"' in first.text
    filled = open_page(anybody, slug, service="ac_service").filled(**TYPED, slot=salon.slot_ids[0])
    assert "no free times" in visible_text(anybody.get(f"/b/{slug}", params={"service": "cleaning"}))
    assert anybody.post(f"/b/{slug}", data=filled | {"service": "staff_only"}).status_code == 422
    wrong = anybody.post(f"/b/{slug}", data=filled | {"service": "cleaning"})
    assert wrong.status_code == 422
    assert "for something else" in visible_text(wrong)
    assert appointments(http) == []


def test_a_slot_of_another_workspace_is_unknown(
    salon: Salon, slug: str, anybody: httpx.Client, http: httpx.Client, api: Api
) -> None:
    """A foreign slot and one that never was get the same answer (P-15)."""
    with api.sign_up("Other").test.client() as other:
        foreign = new_salon(other, f"{slug}-x").slot_ids[0]
    form = open_page(anybody, slug)
    seen = set()
    for slot_id in (foreign, "slt_01J9X0000000000000000000AA"):
        back = anybody.post(f"/b/{slug}", data=form.filled(**TYPED, slot=slot_id))
        seen.add((back.status_code, visible_text(back)))
        form = read_form(back)
    assert len(seen) == 1
    assert seen.pop()[0] == 422
    assert appointments(http) == []


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"slot": ""}, "slot"),
        ({"slot": "slt_x"}, "slot"),
        ({"name": ""}, "name"),
        ({"phone": "", "email": ""}, "email"),
        ({"phone": "x"}, "phone"),
    ],
)
def test_wrong_fields_come_back_with_what_was_typed(
    changed: dict[str, str], field: str, salon: Salon, slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """Each wrong field has its message and is linked from the summary; the chosen time stays chosen."""
    filled = open_page(anybody, slug).filled(**TYPED, slot=salon.slot_ids[1]) | changed
    back = anybody.post(f"/b/{slug}", data=filled)
    assert back.status_code == 422
    assert f'id="error-{field}"' in back.text
    assert f'href="#field-{field}"' in back.text
    assert f'id="field-{field}"' in back.text
    again = read_form(back)
    assert again.fields["name"] == filled["name"]
    assert again.fields.get("slot", "") == (salon.slot_ids[1] if field != "slot" else "")
    assert appointments(http) == []


def test_times_can_be_read_in_another_zone(salon: Salon, slug: str, anybody: httpx.Client) -> None:
    """The visitor's zone changes what is shown, and not what is booked; an unknown zone is ignored."""
    berlin = anybody.get(f"/b/{slug}", params={"tz": "Europe/Berlin"})
    start = salon.starts[0].astimezone(ZoneInfo("Europe/Berlin"))
    assert f"{start:%H:%M}" in visible_text(berlin)
    assert "Europe/Berlin, UTC" in visible_text(berlin)
    assert read_form(berlin).fields["tz"] == "Europe/Berlin"
    assert "Asia/Kolkata" in visible_text(anybody.get(f"/b/{slug}", params={"tz": "Mars/Base"}))
    sent = anybody.post(f"/b/{slug}", data=read_form(berlin).filled(**TYPED, slot=salon.slot_ids[0]))
    assert "17:30 – 18:30" in visible_text(anybody.get(sent.headers["location"]))


def test_many_times_come_page_by_page(http: httpx.Client, slug: str, anybody: httpx.Client) -> None:
    """Following `Later times` shows every free time once, in order."""
    salon = new_salon(http, slug, slots=130)
    found: list[str] = []
    path = f"/b/{slug}"
    for _ in range(5):
        answer = anybody.get(path)
        found += read_form(answer).choices["slot"]
        later = re.search(r'href="([^"]+)">Later times', answer.text)
        if later is None:
            break
        path = later[1].replace("&amp;", "&")
    assert found == salon.slot_ids


@pytest.mark.parametrize(
    "after", ["x", "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+14:00", "2026-11-26", "1" * 200]
)
def test_any_position_is_read_or_ignored(after: str, salon: Salon, slug: str, anybody: httpx.Client) -> None:
    """Whatever stands in the URL, the page answers."""
    assert anybody.get(f"/b/{slug}", params={"after": after, "tz": after, "service": "ac_service"}).status_code == 200


def test_an_appointment_is_cancelled_from_its_page(
    salon: Salon, slug: str, anybody: httpx.Client, http: httpx.Client, api: Api, org: Organisation
) -> None:
    """Its page cancels it, as the contact; the place is free again, and a second time changes nothing (K-07)."""
    sent = anybody.post(f"/b/{slug}", data=open_page(anybody, slug).filled(**TYPED, slot=salon.slot_ids[0]))
    path = sent.headers["location"]
    form = read_form(anybody.get(path))
    assert form.action == f"{path}/cancel"
    gone = anybody.post(form.action, data=form.filled(reason="ill"))
    assert gone.status_code == 303, visible_text(gone)
    assert gone.headers["location"] == path
    assert "Your appointment is cancelled" in visible_text(anybody.get(path))
    [made] = appointments(http)
    assert (made["status"], made["cancel_reason"]) == ("cancelled", "ill")
    assert salon.slot_ids[0] in read_form(anybody.get(f"/b/{slug}")).choices["slot"]
    assert anybody.post(form.action, data=form.filled(reason="ill")).status_code == 303
    actors = {
        (event["actor"]["type"], event["actor"]["id"])
        for event in event_bodies(api, org.test.workspace_id)
        if event["type"] == "appointment.cancelled"
    }
    assert actors == {("contact", made["contact_id"])}


def test_cancelling_needs_the_link_and_a_rendering(
    salon: Salon, slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """Neither the appointment's id nor the token of another page cancels it; a second rendering finds it cancelled already."""
    page = open_page(anybody, slug)
    path = anybody.post(f"/b/{slug}", data=page.filled(**TYPED, slot=salon.slot_ids[0])).headers["location"]
    [made] = appointments(http)
    token = page.fields["idempotency_key"]
    assert anybody.post(f"/b/{slug}/{made['id']}/cancel", data={"idempotency_key": token}).status_code == 404
    assert anybody.post(f"{path}/cancel", data={"idempotency_key": token}).status_code == 403
    assert anybody.get(f"/b/{slug}/{made['id']}").status_code == 404
    assert appointments(http)[0]["status"] == "booked"
    forms = [read_form(anybody.get(path)) for _ in range(2)]
    assert [anybody.post(form.action, data=form.fields).status_code for form in forms] == [303, 409]


def test_an_appointment_is_moved_from_its_page(
    salon: Salon, slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """Another free time takes the place of the old one, which is free again; the link stays good (K-06)."""
    sent = anybody.post(f"/b/{slug}", data=open_page(anybody, slug).filled(**TYPED, slot=salon.slot_ids[0]))
    path = sent.headers["location"]
    form = read_form(anybody.get(f"{path}/move"))
    assert form.choices["slot"] == salon.slot_ids[1:]
    assert anybody.post(form.action, data=form.fields).status_code == 422
    answers = [anybody.post(form.action, data=form.filled(slot=salon.slot_ids[2])) for _ in range(2)]
    assert [(answer.status_code, answer.headers.get("location")) for answer in answers] == [(303, path)] * 2
    [made] = appointments(http)
    assert (made["slot_id"], made["status"]) == (salon.slot_ids[2], "booked")
    assert [entry["actor"]["type"] for entry in made["history"]] == ["contact", "contact"]
    assert "21:30 – 22:30" in visible_text(anybody.get(path))
    assert read_form(anybody.get(f"/b/{slug}")).choices["slot"] == salon.slot_ids[:2]


def test_a_lost_time_keeps_the_old_one(salon: Salon, slug: str, anybody: httpx.Client, http: httpx.Client) -> None:
    """Who moves to a time that was taken meanwhile keeps the appointment and sees fresh times (K-06)."""
    sent = anybody.post(f"/b/{slug}", data=open_page(anybody, slug).filled(**TYPED, slot=salon.slot_ids[0]))
    path = sent.headers["location"]
    form = read_form(anybody.get(f"{path}/move"))
    other = create(http, "/crm/v1/contacts", name="By phone")
    create(http, "/calendar/v1/appointments", slot_id=salon.slot_ids[1], contact_id=other["id"], service="ac_service")
    back = anybody.post(form.action, data=form.filled(slot=salon.slot_ids[1]))
    assert back.status_code == 409
    assert "This time was taken" in visible_text(back)
    assert read_form(back).choices["slot"] == salon.slot_ids[2:]
    assert "17:30 – 18:30" in visible_text(anybody.get(path))
    cancel = read_form(anybody.get(path))
    assert anybody.post(cancel.action, data=cancel.fields).status_code == 303
    gone = anybody.post(form.action, data=read_form(back).filled(slot=salon.slot_ids[2]))
    assert gone.status_code == 409
    assert [one["slot_id"] for one in appointments(http) if one["status"] == "booked"] == [salon.slot_ids[1]]


def test_an_appointment_fits_into_a_calendar(salon: Salon, slug: str, anybody: httpx.Client) -> None:
    """The calendar file has the appointment's times in UTC."""
    path = anybody.post(f"/b/{slug}", data=open_page(anybody, slug).filled(**TYPED, slot=salon.slot_ids[0])).headers[
        "location"
    ]
    file = anybody.get(f"{path}/appointment.ics")
    assert file.headers["content-type"] == "text/calendar; charset=utf-8"
    start: datetime = salon.starts[0]
    assert f"DTSTART:{start:%Y%m%dT%H%M%SZ}" in file.text
    assert f"DTEND:{start + timedelta(hours=1):%Y%m%dT%H%M%SZ}" in file.text
    assert "SUMMARY:AC service\\, Cool Air" in file.text


def test_a_booking_page_is_framed_by_anybody_and_posted_to_from_here(
    salon: Salon, slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """Any site may embed the page; no other site may post to it."""
    answer = anybody.get(f"/b/{slug}", headers={"Origin": "https://any.example"})
    assert answer.headers["content-security-policy"].endswith("frame-ancestors *")
    assert "access-control-allow-origin" not in answer.headers
    filled = read_form(answer).filled(**TYPED, slot=salon.slot_ids[0])
    assert anybody.post(f"/b/{slug}", data=filled, headers={"Origin": "https://any.example"}).status_code == 403
    assert appointments(http) == []


def test_unknown_and_disabled_pages_look_the_same(
    salon: Salon, slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """Nothing tells a disabled page from one that never was; appointments keep their pages (P-15)."""
    path = anybody.post(f"/b/{slug}", data=open_page(anybody, slug).filled(**TYPED, slot=salon.slot_ids[0])).headers[
        "location"
    ]
    http.patch(f"/calendar/v1/booking_pages/{salon.page['id']}", json={"status": "disabled"}).raise_for_status()
    nonce = re.compile(r"nonce[-=][^'>]+")
    answers = [anybody.get(f"/b/{one}") for one in (slug, "never-was")]
    assert {answer.status_code for answer in answers} == {404}
    assert len({nonce.sub("", answer.text) for answer in answers}) == 1
    assert anybody.get(path).status_code == 200


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_a_change_of_daylight_saving_shows_in_the_difference(
    zone: str, http: httpx.Client, slug: str, anybody: httpx.Client
) -> None:
    """The zone's difference on the page is that of the shown times, not that of today."""
    salon = new_salon(http, slug, time_zone=zone)
    start = salon.starts[0].astimezone(ZoneInfo(zone))
    assert f"{zone}, UTC{start:%z}"[:-2] in visible_text(anybody.get(f"/b/{slug}"))
