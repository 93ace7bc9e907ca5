"""Sequences: each step is sent at its time and told once, until the end, a reply or an opt-out (C-13)."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import httpx
import pytest

from tests.api import Account, Api, Organisation
from tests.database import owner_connection
from tests.job_engine import job_runner, working
from tests.message_engine import NotificationsClient, until

DAY_S: Final = 86_400


@pytest.fixture
def crm(http: httpx.Client) -> NotificationsClient:
    """The test workspace, with a template for text messages."""
    client = NotificationsClient(http)
    template(client)
    return client


def template(crm: NotificationsClient) -> None:
    """Create the template that the steps send."""
    crm.post("/notifications/v1/templates", {"slug": "hello", "bodies": {"sms": "Hello {{ name }}"}})


def sequence(crm: NotificationsClient, *delays_s: int, **step: Any) -> str:
    """Create a sequence of text messages with these delays. Returns its id."""
    steps = [{"delay_s": delay_s, "template": "hello", "channels": ["sms"]} | step for delay_s in delays_s]
    return str(crm.post("/crm/v1/sequences", {"name": "Welcome", "steps": steps})["id"])


def enroll(crm: NotificationsClient, sequence_id: str, phone: str = "+910000000000") -> str:
    """Enroll a new contact, whose fate on SMS is in its number. Returns the id of the enrollment."""
    body = {"contact_id": crm.contact(phone)}
    return str(crm.post(f"/crm/v1/sequences/{sequence_id}/enroll", body)["id"])


def told(crm: NotificationsClient) -> list[Any]:
    """The data of all `sequence.step_executed`, oldest first."""
    return [event["data"] for event in crm.events("sequence.step_executed")]


async def reached(crm: NotificationsClient, id: str, *statuses: str) -> Any:
    """Wait until an enrollment has one of these statuses. Returns it."""

    async def look() -> Any:
        found = await asyncio.to_thread(crm.get, f"/crm/v1/enrollments/{id}")
        return found if found["status"] in statuses else None

    return await until(look, f"{id} never became {statuses}")


async def steps_told(crm: NotificationsClient, count: int) -> list[Any]:
    """Wait until so many steps are told."""

    async def look() -> Any:
        found = await asyncio.to_thread(told, crm)
        return found if len(found) >= count else None

    found: list[Any] = await until(look, f"{count} steps were never told")
    return found


@pytest.mark.parametrize(
    ("fate", "outcomes", "reason"),
    [
        ("0", {"delivered"}, None),
        ("1", {"delivered", "read"}, None),  # the delivery is final already; the reading may be known by then
        ("3", {"failed"}, "recipient"),
        ("4", {"sent", "delivered"}, None),
    ],
)
async def test_a_step_tells_what_became_of_its_message(
    crm: NotificationsClient, api: Api, org: Organisation, fate: str, outcomes: set[str], reason: str | None
) -> None:
    """One event per step, when its message has ended, with channel, message and outcome of the message service (C-13)."""
    id = enroll(crm, sequence(crm, 0), f"+9100000000{fate}0")
    async with working(api):
        done = await reached(crm, id, "completed")
    (step,) = told(crm)
    message = crm.message(step["message_id"])
    assert (step["enrollment_id"], step["sequence_id"], step["contact_id"], step["step"]) == (
        id,
        done["sequence_id"],
        done["contact_id"],
        0,
    )
    assert (step["channel"], step["reason"]) == ("sms", reason)
    assert step["outcome"] in outcomes
    assert message["status"] in outcomes
    assert message["contact_id"] == done["contact_id"]
    assert message["metadata"]["enrollment_id"] == id
    (kept,) = done["executed_steps"]
    assert {name: kept[name] for name in ("step", "channel", "message_id", "outcome", "reason")} == {
        name: step[name] for name in ("step", "channel", "message_id", "outcome", "reason")
    }
    kinds = [entry["kind"] for entry in crm.get(f"/crm/v1/contacts/{done['contact_id']}/timeline")["data"]]
    assert [kind for kind in kinds if kind.startswith("sequence.")] == ["sequence.enrolled", "sequence.step_executed"]


async def test_steps_follow_one_another_by_the_clock(crm: NotificationsClient, api: Api) -> None:
    """Each step is due its delay after the outcome of the one before, by the test clock; the last one completes."""
    id = enroll(crm, sequence(crm, 60, DAY_S, 3 * DAY_S))
    path = f"/crm/v1/enrollments/{id}"
    async with working(api):
        for number, delay_s in enumerate((60, DAY_S, 3 * DAY_S)):
            await asyncio.to_thread(crm.advance, delay_s - 20)
            await asyncio.sleep(0.3)
            assert len(told(crm)) == number
            assert (crm.get(path)["step"], crm.get(path)["status"]) == (number, "active")
            await asyncio.to_thread(crm.advance, 21)
            await steps_told(crm, number + 1)
        done = await reached(crm, id, "completed")
    assert [step["step"] for step in told(crm)] == [0, 1, 2]
    assert [step["outcome"] for step in told(crm)] == ["delivered"] * 3
    assert len({step["message_id"] for step in told(crm)}) == 3
    assert done["ended_at"] is not None
    names = [event["type"] for event in crm.events("sequence.*", "enrollment.*")]
    assert sorted(names) == sorted(
        ["sequence.created", "sequence.enrolled", *["sequence.step_executed"] * 3, "enrollment.completed"]
    )


async def test_a_step_that_cannot_be_sent_is_told_and_passed(crm: NotificationsClient, api: Api) -> None:
    """An unknown template, or a person without an address, is outcome `failed` with its reason; the next step comes."""
    steps = [
        {"delay_s": 0, "template": "unknown", "channels": ["sms"]},
        {"delay_s": 0, "template": "hello", "channels": ["email"]},
        {"delay_s": 0, "template": "hello", "channels": ["sms"]},
    ]
    made = crm.post("/crm/v1/sequences", {"name": "Broken", "steps": steps})["id"]
    id = enroll(crm, made)
    async with working(api):
        await reached(crm, id, "completed")
    unknown, no_address, sent = told(crm)
    assert (unknown["outcome"], unknown["message_id"], unknown["channel"]) == ("failed", None, None)
    assert unknown["reason"].startswith("template_not_found")
    assert (no_address["outcome"], no_address["message_id"]) == ("failed", None)
    assert sent["outcome"] == "delivered"


async def test_a_receipt_that_never_comes_ends_with_the_wait(crm: NotificationsClient, api: Api) -> None:
    """A silent provider: the step waits as long as the message does, and tells its end once."""
    id = enroll(crm, sequence(crm, 0), "+910000000020")
    async with working(api):

        async def sent() -> Any:
            message_id = (await asyncio.to_thread(crm.get, f"/crm/v1/enrollments/{id}"))["message_id"]
            return message_id and (await asyncio.to_thread(crm.message, message_id))["status"] == "sent"

        await until(sent, "nothing was sent")
        assert told(crm) == []
        await asyncio.to_thread(crm.advance, 3 * DAY_S)
        await reached(crm, id, "completed")
    (step,) = told(crm)
    assert step["outcome"] == crm.message(step["message_id"])["status"]


@pytest.mark.parametrize(("fate", "reason"), [("1", "replied"), ("2", "opted_out")])
async def test_a_reply_stops_the_enrollment_between_steps(
    crm: NotificationsClient, api: Api, fate: str, reason: str
) -> None:
    """A reply, or STOP, ends the enrollment before the next step, which is never sent (C-13)."""
    id = enroll(crm, sequence(crm, 0, DAY_S), f"+91000000000{fate}")
    async with working(api):
        stopped = await reached(crm, id, "stopped")
        assert stopped["stop_reason"] == reason
        await steps_told(crm, 1)
        await asyncio.to_thread(crm.advance, 2 * DAY_S)
        await asyncio.sleep(0.5)
    assert [step["step"] for step in told(crm)] == [0]
    assert [event["data"]["stop_reason"] for event in crm.events("enrollment.stopped")] == [reason]


async def test_an_opt_out_by_call_stops_all_enrollments_of_the_contact(crm: NotificationsClient, api: Api) -> None:
    """An opt-out noted by API ends every sequence of the contact, and no other contact's."""
    one, two = sequence(crm, DAY_S), sequence(crm, DAY_S)
    first = enroll(crm, one)
    contact = crm.get(f"/crm/v1/enrollments/{first}")["contact_id"]
    second = crm.post(f"/crm/v1/sequences/{two}/enroll", {"contact_id": contact})["id"]
    other = enroll(crm, one, "+910000000100")
    preference = {"contact_id": contact, "channel": "sms", "category": "*"}
    for opted_out in (False, True):
        crm.post("/notifications/v1/preferences", preference | {"opted_out": opted_out}, status=200, method="PUT")
        async with job_runner(api) as runner:
            await runner.run_due()
        wanted = "stopped" if opted_out else "active"
        assert [crm.get(f"/crm/v1/enrollments/{id}")["status"] for id in (first, second)] == [wanted] * 2
    assert crm.get(f"/crm/v1/enrollments/{other}")["status"] == "active"


async def test_an_opt_out_from_before_the_enrollment_stops_it_too(crm: NotificationsClient, api: Api) -> None:
    """A person who does not want messages at all gets none: the step fails, and the rest is not tried."""
    contact = crm.contact("+910000000000")
    body = {"contact_id": contact, "opted_out": True}
    crm.post("/notifications/v1/preferences", body, status=200, method="PUT")
    id = crm.post(f"/crm/v1/sequences/{sequence(crm, 0, 0)}/enroll", {"contact_id": contact})["id"]
    async with working(api):
        stopped = await reached(crm, id, "stopped", "completed")
    assert (stopped["status"], stopped["stop_reason"]) == ("stopped", "opted_out")
    assert [(step["outcome"], step["reason"]) for step in told(crm)] == [("failed", "opted_out")]


async def test_an_old_reply_stops_nothing(crm: NotificationsClient, api: Api) -> None:
    """Only what the contact says after the enrollment began counts."""
    async with working(api):
        contact = crm.contact("+910000000001")
        message = crm.send(contact_id=contact, template="hello", vars={"name": "x"})

        async def replied() -> Any:
            return await asyncio.to_thread(crm.events, "message.replied")

        await crm.until(message, "delivered")
        await until(replied, "nobody replied")
        body = {"contact_id": contact}
        id = crm.post(f"/crm/v1/sequences/{sequence(crm, DAY_S)}/enroll", body)["id"]
        await asyncio.sleep(0.3)
        assert crm.get(f"/crm/v1/enrollments/{id}")["status"] == "active"


async def test_a_paused_sequence_holds_its_steps(crm: NotificationsClient, api: Api) -> None:
    """While paused nothing is sent; what was due meanwhile is sent at the resume, what is due later at its time."""
    made = sequence(crm, DAY_S)
    due, later = enroll(crm, made), enroll(crm, made, "+910000000100")
    crm.post(f"/crm/v1/sequences/{made}/pause", {}, status=200)
    assert crm.post(f"/crm/v1/sequences/{made}/pause", {}, status=409)["allowed"] == ["active"]
    async with owner_connection(api) as owner:
        await owner.execute("UPDATE spine.jobs SET due_at = due_at + interval '2 days' WHERE subject_id = $1", later)
    await asyncio.to_thread(crm.advance, DAY_S + 1)
    async with working(api):

        async def held() -> Any:
            async with owner_connection(api) as owner:
                return await owner.fetchval("SELECT held FROM spine.enrollments WHERE id = $1", due)

        await until(held, "the step was not held")
        assert told(crm) == []
        assert crm.get(f"/crm/v1/enrollments/{due}")["status"] == "active"
        crm.post(f"/crm/v1/sequences/{made}/resume", {}, status=200)
        await reached(crm, due, "completed")
        assert crm.get(f"/crm/v1/enrollments/{later}")["status"] == "active"
        await asyncio.to_thread(crm.advance, 2 * DAY_S)
        await reached(crm, later, "completed")
    crm.post(f"/crm/v1/sequences/{made}/resume", {}, status=409)
    assert {event["type"] for event in crm.events("sequence.paused", "sequence.resumed")} == {
        "sequence.paused",
        "sequence.resumed",
    }


def test_a_contact_goes_through_a_sequence_once_at_a_time(
    crm: NotificationsClient, http: httpx.Client, org: Organisation
) -> None:
    """Of concurrent enrollments one is made; after its end the contact can be enrolled again; a stop is final."""
    made = sequence(crm, DAY_S)
    body = {"contact_id": crm.contact("+910000000000")}

    def one(_: int) -> httpx.Response:
        with org.test.client() as mine:
            return mine.post(f"/crm/v1/sequences/{made}/enroll", json=body)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(one, range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"already_enrolled"}
    (first,) = [answer for answer in answers if answer.status_code == 201]
    id = first.json()["id"]
    assert first.headers["location"] == f"/crm/v1/enrollments/{id}"
    stopped = crm.post(f"/crm/v1/enrollments/{id}/stop", {"reason": "bought"}, status=200)
    assert (stopped["status"], stopped["stop_reason"]) == ("stopped", "bought")
    again = http.post(f"/crm/v1/enrollments/{id}/stop")
    assert (again.status_code, again.json()["code"], again.json()["allowed"]) == (409, "illegal_transition", [])
    second = crm.post(f"/crm/v1/sequences/{made}/enroll", body)
    listed = crm.get(f"/crm/v1/enrollments?sequence_id={made}&contact_id={body['contact_id']}")["data"]
    assert listed == [second, stopped]
    assert crm.get("/crm/v1/enrollments?status=active")["data"] == [second]
    assert crm.get("/crm/v1/sequences?status=paused")["data"] == []


@contextmanager
def dying_at(api: Api, account: Account, table: str) -> Iterator[None]:
    """Let the backend of whoever inserts into this table die, until the block ends."""

    async def execute(*statements: str) -> None:
        async with owner_connection(api) as owner:
            for statement in statements:
                await owner.execute(statement)

    die = "PERFORM pg_terminate_backend(pg_backend_pid())"
    body = f"BEGIN IF NEW.workspace_id = '{account.workspace_id}' THEN {die}; END IF; RETURN NEW; END"
    function = "FUNCTION public.break_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
    asyncio.run(
        execute(
            f"CREATE {function} $${body}$$",
            f"CREATE TRIGGER break_it BEFORE INSERT ON spine.{table} FOR EACH ROW EXECUTE FUNCTION public.break_it()",
        )
    )
    try:
        yield
    finally:
        asyncio.run(execute(f"DROP TRIGGER break_it ON spine.{table}", "DROP FUNCTION public.break_it()"))


async def _until_jobs_failed(api: Api, account: Account, number: int) -> None:
    async def failed() -> Any:
        async with owner_connection(api) as owner:
            await owner.execute("UPDATE spine.jobs SET due_at = now() WHERE failures > 0 AND failures < $1", number)
            return await owner.fetchval(
                "SELECT bool_or(failures >= $2) FROM spine.jobs WHERE workspace_id = $1", account.workspace_id, number
            )

    await until(failed, "no job failed")


@pytest.mark.parametrize("table", ["messages", "enrollment_steps", "timeline_entries"])
async def test_a_worker_that_dies_in_a_step_tells_it_once(
    crm: NotificationsClient, api: Api, org: Organisation, table: str
) -> None:
    """Whatever a dying worker was about to write, each step has one message and one event in the end (C-13)."""
    id = enroll(crm, sequence(crm, 0, 0))
    async with working(api):
        fault = dying_at(api, org.test, table)
        await asyncio.to_thread(fault.__enter__)
        try:
            await _until_jobs_failed(api, org.test, 2)
        finally:
            await asyncio.to_thread(fault.__exit__, None, None, None)
        async with owner_connection(api) as owner:
            await owner.execute("UPDATE spine.jobs SET due_at = now() WHERE failures > 0")
        await reached(crm, id, "completed")
    steps = told(crm)
    assert [step["step"] for step in steps] == [0, 1]
    messages = crm.get("/notifications/v1/messages")["data"]
    assert sorted(message["id"] for message in messages) == sorted(step["message_id"] for step in steps)


async def test_many_workers_tell_each_step_once(crm: NotificationsClient, api: Api) -> None:
    """Three workers at once: every enrollment goes through every step once."""
    made = sequence(crm, 0, 0)
    ids = [enroll(crm, made, f"+910000000{n}00") for n in range(8)]
    async with working(api), working(api), working(api):
        for id in ids:
            await reached(crm, id, "completed")
    assert sorted((step["enrollment_id"], step["step"]) for step in told(crm)) == sorted(
        (id, n) for id in ids for n in (0, 1)
    )
    assert len(crm.get("/notifications/v1/messages?limit=100")["data"]) == 16


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"steps": []}, "steps"),
        ({"steps": [{"delay_s": -1, "template": "hello"}]}, "steps.0.delay_s"),
        ({"steps": [{"delay_s": 0, "template": "hello", "channels": ["pigeon"]}]}, "steps.0.channels.0"),
        ({"steps": [{"delay_s": 0, "template": "hello", "channels": ["sms", "sms"]}]}, "steps.0"),
        ({"steps": [{"delay_s": 0, "template": "hello"}] * 51}, "steps"),
        ({"steps": [{"delay_s": 10**9, "template": "hello"}]}, "steps.0.delay_s"),
        ({"name": ""}, "name"),
    ],
)
def test_a_sequence_that_cannot_be_is_refused(http: httpx.Client, change: Any, param: str) -> None:
    """Steps are 1 to 50, each with a delay up to a year, a template and channels that exist: else 422."""
    body = {"name": "Welcome", "steps": [{"delay_s": 0, "template": "hello", "channels": ["sms"]}]} | change
    answer = http.post("/crm/v1/sequences", json=body)
    assert (answer.status_code, answer.json()["param"]) == (422, param)


def test_others_see_nothing(crm: NotificationsClient, org: Organisation, api: Api) -> None:
    """Foreign sequences and enrollments are not there, and foreign contacts cannot be enrolled (P-15)."""
    made = sequence(crm, DAY_S)
    id = enroll(crm, made)
    contact = crm.get(f"/crm/v1/enrollments/{id}")["contact_id"]
    for other in (org.live, api.sign_up().test):
        with other.client() as http:
            own = sequence(NotificationsClient(http), DAY_S)
            assert http.get(f"/crm/v1/sequences/{made}").status_code == 404
            assert http.post(f"/crm/v1/sequences/{made}/pause").status_code == 404
            assert http.post(f"/crm/v1/sequences/{made}/enroll", json={"contact_id": contact}).status_code == 404
            assert http.get(f"/crm/v1/enrollments/{id}").status_code == 404
            assert http.post(f"/crm/v1/enrollments/{id}/stop").status_code == 404
            foreign = http.post(f"/crm/v1/sequences/{own}/enroll", json={"contact_id": contact})
            assert (foreign.status_code, foreign.json()["code"]) == (422, "reference_not_found")
