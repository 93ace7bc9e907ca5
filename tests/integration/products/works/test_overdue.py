"""Overdue tasks: one event for each due time, whatever moves and however many workers look."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.api import Api
from tests.database import owner_connection
from tests.job_engine import job_runner
from tests.works_client import Works


def soon(**delta: float) -> str:
    """Return a time so long from now."""
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


async def run_jobs(api: Api) -> None:
    """Run every job that is due."""
    async with job_runner(api) as runner:
        await runner.run_due()


async def off_loop(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a blocking function outside of the test's loop."""
    return await asyncio.to_thread(lambda: call(*arguments, **options))


async def advance(works: Works, seconds: float) -> None:
    """Move the workspace's test clock."""
    answer = await off_loop(works.http.post, "/v1/test_helpers/clock", json={"advance_s": seconds})
    assert answer.status_code == 200, answer.text


async def overdue(works: Works) -> list[str]:
    """Return the ids of the tasks in the events `task.overdue`."""
    return [event["data"]["id"] for event in await off_loop(works.events, "task.overdue")]


async def test_a_task_becomes_overdue_once(works: Works, api: Api) -> None:
    """After the due time by the test clock there is one event, also with three runners at once; before it there is none (W-10)."""
    project_id = await off_loop(works.project)
    user_id = await off_loop(works.user)
    tasks = [await off_loop(works.task, project_id, due_at=soon(hours=1), assignee_id=user_id) for _ in range(5)]
    before = await off_loop(works.get, f"queues/{user_id}")
    await off_loop(works.task, project_id)
    await off_loop(works.task, project_id, due_at=soon(days=30))
    await run_jobs(api)
    assert await overdue(works) == []
    await advance(works, 3700)
    async with job_runner(api) as one, job_runner(api) as two, job_runner(api) as three:
        for _ in range(3):
            await asyncio.gather(one.run_due(), two.run_due(), three.run_due())
    assert sorted(await overdue(works)) == sorted(tasks)
    queue = await off_loop(works.get, f"queues/{user_id}")
    assert queue["version"] == before["version"] + 5
    assert None not in [one["overdue_at"] for one in queue["data"]]
    task = await off_loop(works.get, f"tasks/{tasks[0]}")
    assert task["overdue_at"] is not None
    event = next(one for one in await off_loop(works.events, "task.overdue") if one["data"]["id"] == tasks[0])
    assert event["data"] == task
    assert event["actor"]["type"] == "system"


async def test_another_due_time_arms_anew(works: Works, api: Api) -> None:
    """A moved due time becomes overdue once more; the old one does not, and without one nothing does (W-10)."""
    project_id = await off_loop(works.project)
    task_id = await off_loop(works.task, project_id, due_at=soon(hours=-1))
    moved = await off_loop(works.task, project_id, due_at=soon(hours=1))
    cleared = await off_loop(works.task, project_id, due_at=soon(hours=1))
    await run_jobs(api)
    assert await overdue(works) == [task_id]
    changed = await off_loop(works.patch, f"tasks/{task_id}", {"due_at": soon(hours=2)})
    assert changed["overdue_at"] is None
    await off_loop(works.patch, f"tasks/{moved}", {"due_at": soon(days=9)})
    await off_loop(works.patch, f"tasks/{cleared}", {"due_at": None})
    await advance(works, 3700)
    await run_jobs(api)
    assert await overdue(works) == [task_id]
    await advance(works, 3700)
    await run_jobs(api)
    assert await overdue(works) == [task_id, task_id]


async def test_ended_tasks_never_become_overdue(works: Works, api: Api) -> None:
    """Done and cancelled tasks do not; a reopened one does, once for a due time; a title does not arm anew (W-10)."""
    project_id = await off_loop(works.project)
    done, cancelled, reopened, fired = [await off_loop(works.task, project_id, due_at=soon(hours=1)) for _ in range(4)]
    closed_project = await off_loop(works.project)
    await off_loop(works.task, closed_project, due_at=soon(hours=1))
    await off_loop(works.act, f"projects/{closed_project}/close")
    for task_id in (done, reopened):
        await off_loop(works.act, f"tasks/{task_id}/complete")
    await off_loop(works.act, f"tasks/{cancelled}/cancel")
    await advance(works, 3700)
    await run_jobs(api)
    assert await overdue(works) == [fired]
    await off_loop(works.act, f"tasks/{fired}/complete")
    for task_id in (fired, reopened):
        await off_loop(works.act, f"tasks/{task_id}/reopen")
    await off_loop(works.patch, f"tasks/{fired}", {"title": "Paint again"})
    await run_jobs(api)
    assert await overdue(works) == [fired]  # the reopened one is due at its own time, which callers see
    await off_loop(works.patch, f"tasks/{reopened}", {"due_at": soon(seconds=-1)})
    await run_jobs(api)
    assert await overdue(works) == [fired, reopened]


async def test_a_task_under_change_is_looked_at_again(works: Works, api: Api) -> None:
    """A job does not wait for a task that somebody has locked: it comes again, and notes what is due then."""
    task_id = await off_loop(lambda: works.task(works.project(), due_at=soon(hours=-1)))
    async with owner_connection(api) as owner:
        transaction = owner.transaction()
        await transaction.start()
        await owner.execute("SELECT 1 FROM spine.tasks WHERE id = $1 FOR UPDATE", task_id)
        await run_jobs(api)
        assert await overdue(works) == []
        await transaction.rollback()
        await owner.execute("UPDATE spine.jobs SET due_at = now() WHERE subject_id = $1", task_id)
    await run_jobs(api)
    assert await overdue(works) == [task_id]
