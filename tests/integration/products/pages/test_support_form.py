"""The support form: a submission is a ticket with an owner and a state, once (T-13 to T-15, P-05)."""

import asyncio
import re
import secrets
from typing import Any

import asyncpg
import httpx
import pytest

from tests.api import Api, Organisation
from tests.hosted_pages import new_form, read_form, visible_text, visitor
from tests.integration.products.test_events_emitted import event_bodies

TYPED = {
    "name": "Meera Iyer",
    "email": "meera@example.com",
    "phone": "098765 43210",
    "topic": "billing",
    "subject": "Invoice twice",
    "message": "First line\nSecond <b>line</b> & more",
}


@pytest.fixture
def slug() -> str:
    """A slug of one test."""
    return f"help-{secrets.token_hex(6)}"


@pytest.fixture
def form(http: httpx.Client, slug: str) -> dict[str, Any]:
    """An active form."""
    return new_form(http, slug)


@pytest.fixture
def anybody(api: Api) -> Any:
    """A visitor."""
    with visitor(api.url) as made:
        yield made


def tickets(http: httpx.Client) -> list[dict[str, Any]]:
    """All tickets of the workspace."""
    found: list[dict[str, Any]] = http.get("/tickets/v1/tickets").json()["data"]
    return found


def test_a_form_is_live_at_its_url(form: dict[str, Any], slug: str, anybody: httpx.Client) -> None:
    """The path of the created form's `url` answers its page, with labels for every field and its topics (T-13)."""
    assert form["url"].endswith(f"/f/{slug}")
    answer = anybody.get(f"/f/{slug}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    rendered = read_form(answer)
    assert rendered.action == f"/f/{slug}"
    assert {"idempotency_key", *TYPED} <= set(rendered.fields)
    assert rendered.choices["topic"] == ["billing", "delivery"]
    for name in TYPED:
        assert f'<label for="field-{name}">' in answer.text
        assert f'id="field-{name}"' in answer.text
    assert "How can we help?" in visible_text(answer)
    assert "set-cookie" not in answer.headers


def test_a_submission_is_a_ticket_at_once(
    form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client, api: Api, org: Organisation
) -> None:
    """The page behind the answer shows reference, owner and state; the ticket is routed by topic and its contact matched (T-14, T-15)."""
    sent = anybody.post(f"/f/{slug}", data=read_form(anybody.get(f"/f/{slug}")).filled(**TYPED))
    assert sent.status_code == 303, visible_text(sent)
    [ticket] = tickets(http)
    assert (ticket["source"], ticket["topic"], ticket["status"]) == ("form", "billing", "new")
    assert ticket["form_id"] == form["id"]
    contact = http.get(f"/crm/v1/contacts/{ticket['contact_id']}").json()
    assert (contact["name"], contact["phone_e164"], contact["email"]) == (
        "Meera Iyer",
        "+919876543210",
        "meera@example.com",
    )
    thread = http.get(f"/tickets/v1/tickets/{ticket['id']}/thread_entries").json()["data"]
    assert [entry["body"] for entry in thread] == [TYPED["message"]]

    tracking = anybody.get(sent.headers["location"])
    assert tracking.status_code == 200
    text = visible_text(tracking)
    for part in (ticket["id"], "Bob Billing", "New", "Invoice twice"):
        assert part in text
    assert "noindex" in tracking.text
    assert "meera@example.com" not in tracking.text

    emitted = [
        event for event in event_bodies(api, org.test.workspace_id) if event["request_id"] == sent.headers["request-id"]
    ]
    assert {"contact.created", "ticket.created", "ticket.assigned"} <= {event["type"] for event in emitted}
    assert {(event["actor"]["type"], event["actor"]["id"]) for event in emitted} == {("contact", contact["id"])}


def test_the_tracking_page_follows_the_ticket(
    form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """The page behind the link shows the state as it is now, also after the form was disabled."""
    sent = anybody.post(f"/f/{slug}", data=read_form(anybody.get(f"/f/{slug}")).filled(**TYPED))
    [ticket] = tickets(http)
    http.post(f"/tickets/v1/tickets/{ticket['id']}/resolve", json={"resolution_note": "secret of staff"})
    assert http.post(f"/tickets/v1/forms/{form['id']}/disable", json={}).status_code == 200
    tracking = anybody.get(sent.headers["location"])
    assert "Resolved" in visible_text(tracking)
    assert "secret of staff" not in tracking.text


def test_a_known_person_is_matched_and_not_changed(
    form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """A visitor whose number is known becomes no second contact, changes nothing of it and sees nothing of it (T-15, C-01)."""
    known = http.post(
        "/crm/v1/contacts", json={"name": "Known", "phone": "+919876543210", "email": "k@example.com"}
    ).json()
    sent = anybody.post(f"/f/{slug}", data=read_form(anybody.get(f"/f/{slug}")).filled(**TYPED))
    assert sent.status_code == 303
    assert tickets(http)[0]["contact_id"] == known["id"]
    assert http.get(f"/crm/v1/contacts/{known['id']}").json() == known
    assert "k@example.com" not in anybody.get(sent.headers["location"]).text


def test_the_same_page_sent_twice_is_one_ticket(
    form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """A second submission of one rendering answers the same result page; another rendering is another ticket (P-05, T-13)."""
    filled = read_form(anybody.get(f"/f/{slug}")).filled(**TYPED)
    first, second = (anybody.post(f"/f/{slug}", data=filled) for _ in range(2))
    assert (first.status_code, second.status_code) == (303, 303)
    assert first.headers["location"] == second.headers["location"]
    assert len(tickets(http)) == 1
    again = anybody.post(f"/f/{slug}", data=read_form(anybody.get(f"/f/{slug}")).filled(**TYPED))
    assert again.status_code == 303
    assert again.headers["location"] != first.headers["location"]
    assert len(tickets(http)) == 2


def test_one_page_sent_twenty_times_at_once_is_one_ticket(
    form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client, api: Api
) -> None:
    """Concurrent submissions of one rendering, as from two tabs, all lead to one ticket."""
    filled = read_form(anybody.get(f"/f/{slug}")).filled(**TYPED)

    async def race() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=api.url, timeout=30, trust_env=False) as many:
            return await asyncio.gather(*(many.post(f"/f/{slug}", data=filled) for _ in range(20)))

    answers = asyncio.run(race())
    assert {answer.status_code for answer in answers} == {303}
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert len(tickets(http)) == 1


def test_a_page_that_was_changed_after_it_was_sent_is_asked_again(
    form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """The same rendering with other contents is 409 and comes back with a new key, with which it is taken."""
    filled = read_form(anybody.get(f"/f/{slug}")).filled(**TYPED)
    assert anybody.post(f"/f/{slug}", data=filled).status_code == 303
    changed = anybody.post(f"/f/{slug}", data=filled | {"subject": "Another"})
    assert changed.status_code == 409
    assert "sent this page before" in visible_text(changed)
    assert len(tickets(http)) == 1
    again = read_form(changed)
    assert again.fields["subject"] == "Another"
    assert again.fields["idempotency_key"] != filled["idempotency_key"]
    assert anybody.post(f"/f/{slug}", data=again.fields).status_code == 303
    assert len(tickets(http)) == 2


@pytest.mark.parametrize(
    ("topic", "owner", "kept"),
    [("delivery", "Ann Default", "delivery"), ("", "Ann Default", None), ("vip_escalation", "Ann Default", None)],
)
def test_every_topic_leads_to_an_owner(
    topic: str, owner: str, kept: str | None, form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """A topic without a route, none, and one that the form does not offer take the default route (T-14)."""
    sent = anybody.post(f"/f/{slug}", data=read_form(anybody.get(f"/f/{slug}")).filled(**{**TYPED, "topic": topic}))
    assert sent.status_code == 303
    assert owner in visible_text(anybody.get(sent.headers["location"]))
    [ticket] = tickets(http)
    assert ticket["topic"] == kept
    assert ticket["metadata"] == ({"topic_given": topic} if topic == "vip_escalation" else {})


def test_wrong_fields_come_back_with_what_was_typed(
    form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """Each wrong field has its message, tied to it and listed in a summary that takes the focus; nothing typed is lost."""
    typed = {**TYPED, "name": " ", "email": "nobody", "phone": "", "message": "<script>alert(1)</script>"}
    back = anybody.post(f"/f/{slug}", data=read_form(anybody.get(f"/f/{slug}")).filled(**typed))
    assert back.status_code == 422
    rendered = read_form(back)
    assert {name: rendered.fields[name] for name in ("email", "topic", "subject")} == {
        name: typed[name] for name in ("email", "topic", "subject")
    }
    assert rendered.fields["message"] == typed["message"]
    assert "<script>alert" not in back.text
    for name in ("name", "email"):
        field = re.search(rf'<input id="field-{name}"[^>]*>', back.text)
        assert field is not None
        assert 'aria-invalid="true"' in field[0]
        assert f"error-{name}" in field[0]
        assert f'id="error-{name}"' in back.text
        assert f'href="#field-{name}"' in back.text
    assert re.search(r'<div class="errors"[^>]* role="alert" tabindex="-1" autofocus', back.text)
    assert "<title>Error: " in back.text
    assert tickets(http) == []


def test_a_filled_trap_is_refused_openly(
    form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """Who fills in the hidden field is told so: a browser that filled it in by itself loses no request."""
    filled = read_form(anybody.get(f"/f/{slug}")).filled(**TYPED, website="https://spam.example")
    back = anybody.post(f"/f/{slug}", data=filled)
    assert back.status_code == 422
    assert "Leave this field empty" in visible_text(back)
    assert tickets(http) == []
    assert anybody.post(f"/f/{slug}", data=read_form(back).filled(website="")).status_code == 303


@pytest.mark.parametrize("token", ["", "x", "1764144000000.AAAAAAAAAAAAAAAAAAAAAA." + "0" * 64])
def test_a_post_without_a_rendering_is_refused(
    token: str, form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """Without a token of ours nothing is written; the page comes back with what was typed and a good one."""
    back = anybody.post(f"/f/{slug}", data={**TYPED, "idempotency_key": token})
    assert back.status_code == 403
    assert tickets(http) == []
    assert anybody.post(f"/f/{slug}", data=read_form(back).fields).status_code == 303


def test_the_token_of_another_form_is_refused(
    form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """A rendering of one page is none of another, not even of the same workspace."""
    other = f"{slug}-b"
    http.post("/tickets/v1/forms", json={"slug": other, "title": "Other"}).raise_for_status()
    filled = read_form(anybody.get(f"/f/{other}")).filled(**TYPED)
    assert anybody.post(f"/f/{slug}", data=filled).status_code == 403
    assert tickets(http) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 303),
        ({"Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site"}, 303),
        ({"Origin": "OWN", "Sec-Fetch-Site": "same-origin"}, 303),
    ],
)
def test_a_browser_posts_only_from_here_and_from_listed_origins(
    headers: dict[str, str],
    status: int,
    form: dict[str, Any],
    slug: str,
    anybody: httpx.Client,
    api: Api,
    http: httpx.Client,
) -> None:
    """A page of another origin cannot post, whatever token it has; the form's origins and our own can (T-13)."""
    filled = read_form(anybody.get(f"/f/{slug}")).filled(**TYPED)
    sent = anybody.post(
        f"/f/{slug}",
        data=filled,
        headers={name: api.url if value == "OWN" else value for name, value in headers.items()},
    )
    assert sent.status_code == status
    assert len(tickets(http)) == (status == 303)


def test_a_script_of_a_listed_origin_may_read(form: dict[str, Any], slug: str, anybody: httpx.Client) -> None:
    """CORS names the listed origin alone, and allows no credentials."""
    listed = anybody.get(f"/f/{slug}", headers={"Origin": "https://shop.example"})
    assert listed.headers["access-control-allow-origin"] == "https://shop.example"
    assert listed.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in listed.headers
    assert (
        "access-control-allow-origin"
        not in anybody.get(f"/f/{slug}", headers={"Origin": "https://evil.example"}).headers
    )


def test_the_form_is_framed_by_its_origins_alone(
    form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """`frame-ancestors` is the list of the form, and nobody if there is none; the tracking page has the same."""
    page = anybody.get(f"/f/{slug}")
    assert "frame-ancestors https://shop.example" in page.headers["content-security-policy"]
    sent = anybody.post(f"/f/{slug}", data=read_form(page).filled(**TYPED))
    tracking = anybody.get(sent.headers["location"])
    assert "frame-ancestors https://shop.example" in tracking.headers["content-security-policy"]
    http.patch(f"/tickets/v1/forms/{form['id']}", json={"allowed_origins": []}).raise_for_status()
    assert "frame-ancestors 'none'" in anybody.get(f"/f/{slug}").headers["content-security-policy"]


def test_unknown_and_disabled_forms_look_the_same(
    form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """Nothing tells a disabled form from one that never was, for GET and POST (P-15, conventions 2.6)."""
    filled = read_form(anybody.get(f"/f/{slug}")).filled(**TYPED)
    http.post(f"/tickets/v1/forms/{form['id']}/disable", json={}).raise_for_status()

    def seen(answer: httpx.Response) -> tuple[int, str, list[str]]:
        nonce = re.compile(r"nonce[-=][^'>]+")
        return answer.status_code, nonce.sub("", answer.text), sorted(answer.headers)

    unknown = anybody.get("/f/never-was")
    assert unknown.status_code == 404
    assert seen(anybody.get(f"/f/{slug}")) == seen(unknown)
    assert (
        seen(anybody.post(f"/f/{slug}", data=filled))
        == seen(anybody.post("/f/never-was", data=filled))
        == seen(unknown)
    )
    for strange in ("%00", "..%2f..", "é", "x" * 300, "a b"):
        assert anybody.get(f"/f/{strange}").status_code == 404
    assert tickets(http) == []


@pytest.mark.parametrize(
    ("content", "type", "status"),
    [
        (b"{}", "application/json", 422),
        (b"", "application/x-www-form-urlencoded", 403),
        (b"a=1&a=2", "application/x-www-form-urlencoded", 422),
        (b"a=%ff", "application/x-www-form-urlencoded", 422),
        (b"&".join(b"f%d=" % n for n in range(40)), "application/x-www-form-urlencoded", 422),
        (b"message=" + b"x" * 200_000, "application/x-www-form-urlencoded", 413),
        (b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x", 422),
    ],
)
def test_a_body_is_bounded_and_of_one_type(
    content: bytes, type: str, status: int, form: dict[str, Any], slug: str, anybody: httpx.Client
) -> None:
    """Other types, broken encodings, repeated or too many fields and long bodies are refused with a page, and nothing fails."""
    answer = anybody.post(f"/f/{slug}", content=content, headers={"Content-Type": type})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("link", ["x", "A" * 160, "tkt_01J9X0000000000000000000AA"])
def test_a_link_cannot_be_guessed(link: str, form: dict[str, Any], slug: str, anybody: httpx.Client) -> None:
    """Nothing but a link of ours shows a ticket: not its id either."""
    assert anybody.get(f"/f/{slug}/{link}").status_code == 404


def test_a_link_holds_under_its_own_slug(
    form: dict[str, Any], slug: str, anybody: httpx.Client, http: httpx.Client
) -> None:
    """The link of one form opens under no other, and the ticket's id opens nothing."""
    sent = anybody.post(f"/f/{slug}", data=read_form(anybody.get(f"/f/{slug}")).filled(**TYPED))
    link = sent.headers["location"].rpartition("/")[2]
    assert anybody.get(f"/f/{slug}-b/{link}").status_code == 404
    assert anybody.get(f"/b/{slug}/{link}").status_code == 404
    assert anybody.get(f"/f/{slug}/{tickets(http)[0]['id']}").status_code == 404


def test_the_link_is_not_stored_in_the_clear(form: dict[str, Any], slug: str, anybody: httpx.Client, api: Api) -> None:
    """Who reads the table of idempotency keys finds no link in it."""
    sent = anybody.post(f"/f/{slug}", data=read_form(anybody.get(f"/f/{slug}")).filled(**TYPED))
    link = sent.headers["location"].rpartition("/")[2]

    async def stored() -> list[Any]:
        owner = await asyncpg.connect(api.database_url)
        try:
            return list(
                await owner.fetch("SELECT location, body FROM spine.idempotency_keys WHERE key LIKE 'page f/%'")
            )
        finally:
            await owner.close()

    rows = asyncio.run(stored())
    assert rows
    assert all(row["location"] is None and link.encode() not in row["body"] for row in rows)


def test_the_routes_need_no_idempotency_header(form: dict[str, Any], slug: str, anybody: httpx.Client) -> None:
    """A header of that name is not read: the key of the page decides (X21, wire.md)."""
    filled = read_form(anybody.get(f"/f/{slug}")).filled(**TYPED)
    answers = [anybody.post(f"/f/{slug}", data=filled, headers={"Idempotency-Key": key}) for key in ("a", "b", "")]
    assert {answer.headers["location"] for answer in answers} == {answers[0].headers["location"]}
