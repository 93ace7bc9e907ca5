"""Jobs of products: exactly once, at their time, in turn by workspace, whatever fails."""

import asyncio
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from products.catalogue import CATALOGUE, CONSUMERS, JOBS
from spine.kernel import jobs, timeline
from spine.kernel.errors import Conflict
from spine.kernel.jobs import Job
from spine.kernel.unit_of_work import UnitOfWork
from tests.api import Account, Api, Organisation
from tests.database import owner_connection
from tests.job_engine import job_runner

KIND = "test.note"


async def _put(api: Api, account: Account, *subjects: str, due_in_s: float = 0, kind: str = KIND) -> None:
    async with owner_connection(api) as owner:
        await owner.executemany(
            "INSERT INTO spine.jobs (workspace_id, kind, subject_id, due_at) VALUES ($1, $2, $3, now() + make_interval(secs => $4))",
            [(account.workspace_id, kind, subject, due_in_s) for subject in subjects],
        )


async def _rows(api: Api, account: Account) -> list[asyncpg.Record]:
    async with owner_connection(api) as owner:
        return list(
            await owner.fetch(
                "SELECT *, due_at > now() AS later FROM spine.jobs WHERE workspace_id = $1 ORDER BY subject_id",
                account.workspace_id,
            )
        )


async def _append(unit: UnitOfWork, job: Job) -> None:
    await timeline.append(unit, job.subject_id, "test.noted", detail=job.args)


async def _notes(api: Api, account: Account) -> list[Any]:
    async with owner_connection(api) as owner:
        return list(
            await owner.fetch(
                "SELECT subject_id, actor FROM spine.timeline_entries WHERE workspace_id = $1 AND kind = 'test.noted' ORDER BY seq",
                account.workspace_id,
            )
        )


async def test_due_jobs_run_and_later_ones_wait(api: Api, org: Organisation) -> None:
    """A job runs once it is due, as the actor `system`, and its row is gone; one that is due later stays."""
    await _put(api, org.test, "a", "b")
    await _put(api, org.test, "later", due_in_s=3600)
    async with job_runner(api, {KIND: _append}) as runner:
        assert await runner.run_due() == 2
        assert await runner.run_due() == 0
    notes = await _notes(api, org.test)
    assert sorted(note["subject_id"] for note in notes) == ["a", "b"]
    assert {note["actor"] for note in notes} == {'{"id": "spine", "type": "system"}'}
    assert [row["subject_id"] for row in await _rows(api, org.test)] == ["later"]


async def test_many_runners_do_a_job_once(api: Api, org: Organisation) -> None:
    """However many workers run, the effects of each job are committed exactly once."""
    subjects = [f"s{n:03}" for n in range(60)]
    await _put(api, org.test, *subjects)
    async with (
        job_runner(api, {KIND: _append}) as one,
        job_runner(api, {KIND: _append}) as two,
        job_runner(api, {KIND: _append}) as three,
    ):
        while await _rows(api, org.test):
            await asyncio.gather(one.run_due(), two.run_due(), three.run_due())
    assert sorted(note["subject_id"] for note in await _notes(api, org.test)) == subjects


@pytest.mark.parametrize("error", [Conflict("no"), RuntimeError("bug")], ids=["refusal", "bug"])
async def test_a_job_that_fails_changes_nothing_and_is_repeated(api: Api, org: Organisation, error: Exception) -> None:
    """What a failed job did is rolled back; it waits, longer each time, and the others go on."""

    async def fail(unit: UnitOfWork, job: Job) -> None:
        await _append(unit, job)
        if job.subject_id == "bad":
            raise error

    await _put(api, org.test, "bad", "good")
    async with job_runner(api, {KIND: fail}) as runner:
        assert await runner.run_due() == 1
    (row,) = await _rows(api, org.test)
    assert (row["subject_id"], row["failures"], row["error"], row["later"]) == ("bad", 1, type(error).__name__, True)
    assert [note["subject_id"] for note in await _notes(api, org.test)] == ["good"]


async def test_a_backlog_of_one_workspace_does_not_stop_another(api: Api, org: Organisation) -> None:
    """While more jobs are due than one list holds, workspaces take turns: a new one is done long before the backlog is."""
    quiet = api.sign_up().test
    done: list[str] = []

    async def note(unit: UnitOfWork, job: Job) -> None:
        done.append(job.subject_id)

    await _put(api, org.test, *(f"old{n}" for n in range(1500)))
    await _put(api, quiet, "new")
    async with job_runner(api, {KIND: note}) as runner:
        await runner.run_due()
    assert {*done} >= {"new", *(f"old{n}" for n in range(1500))}
    assert done.index("new") < 500


async def test_an_unknown_kind_waits(api: Api, org: Organisation) -> None:
    """A job of a kind that this version does not know stays for one that does."""
    await _put(api, org.test, "a", kind="test.future")
    async with job_runner(api, {KIND: _append}) as runner:
        assert await runner.run_due() == 0
    assert [row["failures"] for row in await _rows(api, org.test)] == [0]


async def test_a_handler_sees_its_own_workspace_only(api: Api, org: Organisation) -> None:
    """On tables of products a job sees the rows of its workspace and no others, as the database enforces."""
    seen: list[Any] = []

    async def look(unit: UnitOfWork, job: Job) -> None:
        seen.append(await unit.session.scalar(text("SELECT current_setting('app.ws')")))
        await jobs.schedule(unit, "test.other", job.subject_id)

    await _put(api, org.live, "a")
    async with job_runner(api, {KIND: look}) as runner:
        await runner.run_due()
    assert seen == [org.live.workspace_id]
    assert [row["kind"] for row in await _rows(api, org.live)] == ["test.other"]


async def test_a_moved_message_wakes_the_job_that_waits_for_it(api: Api, org: Organisation) -> None:
    """A job that waits for a message is due as soon as the message changes, and before that only at its own time."""
    with org.test.client() as http:
        http.post("/notifications/v1/templates", json={"slug": "hi", "bodies": {"sms": "Hi"}}).raise_for_status()
        message = http.post(
            "/notifications/v1/messages", json={"to": "+910000000000", "template": "hi", "channels": ["sms"]}
        ).json()
        await _put(api, org.test, "a", due_in_s=3600)
        async with owner_connection(api) as owner:
            await owner.execute(
                "UPDATE spine.jobs SET message_id = $2 WHERE workspace_id = $1", org.test.workspace_id, message["id"]
            )
        assert [row["later"] for row in await _rows(api, org.test)] == [True]
        http.post(f"/notifications/v1/messages/{message['id']}/cancel").raise_for_status()
    assert [row["later"] for row in await _rows(api, org.test)] == [False]


def test_event_types_of_consumers_exist() -> None:
    """Every consumer follows an event that the catalogue has, with a handler that exists."""
    assert set(CONSUMERS) <= set(CATALOGUE.types)
    assert {kind for kinds in CONSUMERS.values() for kind in kinds} <= set(JOBS)
