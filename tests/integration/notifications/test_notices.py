"""Notices of products: sent through the public message service, in the transaction of the work that they tell of."""

from typing import Any

import httpx

from spine.kernel.jobs import Job
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.notices import Notice, SentNotice, send_notice
from tests.api import Account, Api, Organisation
from tests.database import owner_connection
from tests.job_engine import job_runner

NOTICE = Notice("visit_planned", "Your visit", "See you at {{ time }}.", ("time",))
KIND = "test.notice"


async def _send(api: Api, account: Account, contact_id: str, *, fail: bool = False, **vars: str) -> SentNotice | None:
    """Send the notice from a job of the workspace."""
    sent: list[SentNotice] = []

    async def handler(unit: UnitOfWork, job: Job) -> None:
        sent.append(await send_notice(unit, NOTICE, job.subject_id, vars, metadata={"visit": "1"}))
        if fail:
            raise RuntimeError("after the notice")

    async with owner_connection(api) as owner:
        await owner.execute(
            "INSERT INTO spine.jobs (workspace_id, kind, subject_id, due_at) VALUES ($1, $2, $3, now())",
            account.workspace_id, KIND, contact_id,
        )  # fmt: skip
    async with job_runner(api, {KIND: handler}) as runner:
        await runner.run_due()
    return sent[-1] if sent else None


def _contact(http: httpx.Client, **address: str) -> str:
    return str(http.post("/crm/v1/contacts", json={"name": "Meera", **address}).raise_for_status().json()["id"])


def _list(http: httpx.Client, path: str, **filters: Any) -> list[Any]:
    found: list[Any] = http.get(path, params=filters).raise_for_status().json()["data"]
    return found


def _create_template(http: httpx.Client, text: str) -> None:
    body = {"slug": "visit_planned", "bodies": {"sms": text}}
    http.post("/notifications/v1/templates", json=body).raise_for_status()


def _messages(http: httpx.Client) -> list[Any]:
    return _list(http, "/notifications/v1/messages")


async def test_a_notice_is_a_message_with_a_template_of_its_own(
    api: Api, org: Organisation, http: httpx.Client
) -> None:
    """A notice is a message like any other, of the actor `system`; its built-in text becomes the workspace's template once."""
    contact_id = _contact(http, phone="+910000000000")
    first = await _send(api, org.test, contact_id, time="5 pm")
    second = await _send(api, org.test, contact_id, time="6 pm")
    assert first is not None
    assert second is not None
    messages = {message["id"]: message for message in _messages(http)}
    assert set(messages) == {first.message_id, second.message_id}
    assert (
        messages[first.message_id or ""] | {"template": "visit_planned", "metadata": {"visit": "1"}}
        == messages[first.message_id or ""]
    )
    templates = _list(http, "/notifications/v1/templates", slug="visit_planned")
    assert [(one["version"], one["required_vars"]) for one in templates] == [(1, ["time"])]
    events = _list(http, "/v1/events", type=["template.created", "message.created"])
    assert [event["type"] for event in events] == ["template.created", "message.created", "message.created"]
    assert {event["actor"]["type"] for event in events} == {"system"}


async def test_the_workspace_has_the_last_word(api: Api, org: Organisation, http: httpx.Client) -> None:
    """A template of the workspace with the notice's slug is used instead of the built-in text."""
    _create_template(http, "Own {{ time }}")
    sent = await _send(api, org.test, _contact(http, phone="+910000000000"), time="5 pm")
    assert sent is not None
    (message,) = _messages(http)
    assert (message["id"], message["template_version"]) == (sent.message_id, 1)


async def test_a_notice_that_cannot_be_sent_says_why(api: Api, org: Organisation, http: httpx.Client) -> None:
    """A contact without an address, or a variable that is missing, is no error of the work: the result has code and reason."""
    nobody = await _send(api, org.test, _contact(http), time="5 pm")
    assert nobody is not None
    assert (nobody.message_id, nobody.refused) == (None, "no_channel")
    incomplete = await _send(api, org.test, _contact(http, phone="+910000000000"))
    assert incomplete is not None
    assert (incomplete.message_id, incomplete.refused) == (None, "variable_missing")
    assert _messages(http) == []


async def test_work_that_fails_sends_nothing(api: Api, org: Organisation, http: httpx.Client) -> None:
    """The message is in the transaction of the work: if that is rolled back, no message was ever there."""
    await _send(api, org.test, _contact(http, phone="+910000000000"), fail=True, time="5 pm")
    assert _messages(http) == []
