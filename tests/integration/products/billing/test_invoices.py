"""Invoices: one draft for each reached milestone with billing, whatever dies or comes twice (W-07)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from products.billing import invoices
from products.catalogue import JOBS
from spine.kernel.jobs import Job
from spine.kernel.unit_of_work import UnitOfWork
from tests.api import Api, Organisation
from tests.database import count_rows, owner_connection
from tests.job_engine import job_runner
from tests.works_client import Works

BILLING = {"amount_minor": 250_000, "currency": "INR", "description": "Design phase"}


async def off_loop(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a blocking function outside of the test's loop."""
    return await asyncio.to_thread(lambda: call(*arguments, **options))


async def drafts(works: Works) -> list[dict[str, Any]]:
    """Return the invoices of the workspace."""
    found: list[dict[str, Any]] = (await off_loop(works.http.get, "/billing/v1/invoices")).json()["data"]
    return found


async def test_concurrent_reaches_draft_one_invoice(works: Works, api: Api, org: Organisation) -> None:
    """Twenty concurrent reaches and three runners draft one invoice, of the milestone's amount, from its one event."""
    milestone_id = await off_loop(lambda: works.milestone(works.project(), billing=BILLING))
    async with org.test.async_client() as http:
        await asyncio.gather(*(http.post(f"/works/v1/milestones/{milestone_id}/reach") for _ in range(20)))
    async with job_runner(api) as one, job_runner(api) as two, job_runner(api) as three:
        for _ in range(3):
            await asyncio.gather(one.run_due(), two.run_due(), three.run_due())
    [draft] = await drafts(works)
    [reached] = await off_loop(works.events, "milestone.reached")
    assert {name: draft[name] for name in BILLING} == BILLING
    assert (draft["milestone_id"], draft["source_event_id"]) == (milestone_id, reached["id"])
    assert (draft["status"], draft["project_id"]) == ("draft", reached["data"]["project_id"])
    [event] = await off_loop(works.events, "invoice.drafted")
    assert event["data"] == draft


async def test_a_milestone_without_billing_drafts_nothing(works: Works, api: Api, org: Organisation) -> None:
    """Without billing there is no invoice, and the job is done."""
    milestone_id = await off_loop(lambda: works.milestone(works.project()))
    await off_loop(works.act, f"milestones/{milestone_id}/reach")
    async with job_runner(api) as runner:
        assert await runner.run_due() == 1
    assert await drafts(works) == []
    assert await count_rows(api, "jobs", org.test) == 0


@pytest.mark.parametrize("when", ["before it drafts", "after it drafted"])
async def test_a_consumer_that_dies_drafts_once_later(works: Works, api: Api, org: Organisation, when: str) -> None:
    """If the consumer dies before its commit, nothing of it is left, and the next one drafts the invoice once."""
    milestone_id = await off_loop(lambda: works.milestone(works.project(), billing=BILLING))
    await off_loop(works.act, f"milestones/{milestone_id}/reach")

    async def die(unit: UnitOfWork, job: Job) -> None:
        if when == "after it drafted":
            await invoices.draft_invoice(unit, job)
        connection = await unit.session.connection()
        await connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    async with job_runner(api, {**JOBS, invoices.KIND: die}) as runner:
        assert await runner.run_due() == 0
    assert await drafts(works) == []
    async with owner_connection(api) as owner:
        await owner.execute("UPDATE spine.jobs SET due_at = now() WHERE workspace_id = $1", org.test.workspace_id)
    async with job_runner(api) as runner:
        assert await runner.run_due() == 1
    assert len(await drafts(works)) == 1
    assert len(await off_loop(works.events, "invoice.drafted")) == 1


async def test_an_event_that_comes_again_drafts_nothing_more(works: Works, api: Api, org: Organisation) -> None:
    """The same event consumed again, also after its invoice was voided, drafts no other invoice and emits nothing."""
    milestone_id = await off_loop(lambda: works.milestone(works.project(), billing=BILLING))
    await off_loop(works.act, f"milestones/{milestone_id}/reach")
    async with job_runner(api) as runner:
        await runner.run_due()
        [draft] = await drafts(works)
        for _ in range(2):
            async with owner_connection(api) as owner:
                await owner.execute(
                    "INSERT INTO spine.jobs (workspace_id, kind, subject_id, due_at) VALUES ($1, $2, $3, now())",
                    *(org.test.workspace_id, invoices.KIND, draft["source_event_id"]),
                )
            assert await runner.run_due() == 1
            await off_loop(works.http.post, f"/billing/v1/invoices/{draft['id']}/void")
    assert [one["id"] for one in await drafts(works)] == [draft["id"]]
    assert len(await off_loop(works.events, "invoice.drafted")) == 1


async def test_a_draft_is_voided_once(works: Works, api: Api) -> None:
    """A draft becomes void, with its reason and event; a void invoice stays so: 409. Lists are filtered."""
    project_id = await off_loop(works.project)
    for name in ("a", "b"):
        milestone_id = await off_loop(works.milestone, project_id, name=name, billing=BILLING)
        await off_loop(works.act, f"milestones/{milestone_id}/reach")
    async with job_runner(api) as runner:
        await runner.run_due()
    newest, oldest = await drafts(works)

    def look() -> None:
        path = f"/billing/v1/invoices/{oldest['id']}"
        voided = works.http.post(f"{path}/void", json={"reason": "paid in cash"}).json()
        assert (voided["status"], voided["void_reason"]) == ("void", "paid in cash")
        assert works.http.get(path).json() == voided
        again = works.http.post(f"{path}/void")
        assert (again.status_code, again.json()["code"], again.json()["allowed"]) == (409, "illegal_transition", [])
        [event] = works.events("invoice.voided")
        assert event["data"] == voided
        for query, ids in {
            "status=void": [oldest["id"]],
            f"project_id={project_id}": [newest["id"], oldest["id"]],
            f"project_id={project_id}&status=draft": [newest["id"]],
            f"milestone_id={newest['milestone_id']}": [newest["id"]],
        }.items():
            assert [one["id"] for one in works.http.get(f"/billing/v1/invoices?{query}").json()["data"]] == ids

    await off_loop(look)
