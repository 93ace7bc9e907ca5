"""Queues: a user's open tasks, the most urgent first, in one call."""

import asyncio
from typing import Any

from sqlalchemy import event as engine_event

from tests.api import Api
from tests.database import owner_connection
from tests.works_client import Works


def test_a_queue_is_in_the_order_of_urgency(works: Works) -> None:
    """Open tasks and those in progress come by due time, those without one last, in the order of ids within (W-14)."""
    project_id, user_id = works.project(), works.user()

    def task(due_at: str | None = None) -> str:
        return works.task(project_id, assignee_id=user_id, due_at=due_at)

    undated, late, early = task(), task("2030-05-01T00:00:00Z"), task("2030-01-01T00:00:00+05:30")
    same_time, undated_too = task("2030-05-01T00:00:00Z"), task()
    done, started = task(), task("2029-01-01T00:00:00Z")
    works.act(f"tasks/{done}/complete")
    works.patch(f"tasks/{started}", {"status": "in_progress"})
    works.task(project_id, assignee_id=works.user("Ravi"))
    queue = works.get(f"queues/{user_id}")
    assert [one["id"] for one in queue["data"]] == [started, early, late, same_time, undated, undated_too]
    assert (queue["user_id"], queue["truncated"]) == (user_id, False)
    assert queue["data"][0] == works.get(f"tasks/{started}")


def test_a_user_without_tasks_has_an_empty_queue(works: Works, api: Api) -> None:
    """A user's queue is empty at first; there is none of an unknown, malformed or foreign user."""
    assert works.get(f"queues/{works.user()}")["data"] == []
    foreign_account = api.sign_up("Other").test
    with foreign_account.client() as http:
        theirs = Works(http, api, foreign_account).user()
    for user_id in (theirs, "usr_01J9X0000000000000000000ZZ", "nobody"):
        for path in (f"queues/{user_id}", f"queues/{user_id}/stream"):
            assert works.get(path, status=404)["code"] == "not_found"


def test_a_queue_shows_the_last_write(works: Works) -> None:
    """A read after a write shows it, a hundred times over (P-27)."""
    project_id, user_id = works.project(), works.user()
    for _ in range(50):
        task_id = works.task(project_id, assignee_id=user_id)
        assert [one["id"] for one in works.get(f"queues/{user_id}")["data"]] == [task_id]
        works.act(f"tasks/{task_id}/complete")
        assert works.get(f"queues/{user_id}")["data"] == []


def test_the_version_rises_with_each_change_of_the_queue(works: Works) -> None:
    """Each change of a task in it, its arrival and its leaving raise a queue's version; changes of others do not."""
    project_id, user_id, other = works.project(), works.user(), works.user("Ravi")
    versions = [works.get(f"queues/{user_id}")["version"]]

    def rises(by: int) -> None:
        versions.append(works.get(f"queues/{user_id}")["version"])
        assert versions[-1] - versions[-2] == by

    task_id = works.task(project_id, assignee_id=user_id)
    rises(1)
    works.patch(f"tasks/{task_id}", {"title": "Clean"})
    rises(1)
    works.act(f"tasks/{task_id}/assign", {"assignee_id": other})
    rises(1)
    works.act(f"tasks/{task_id}/complete")
    works.task(project_id)
    rises(0)


async def _fill(works: Works, project_id: str, user_id: str, *, ended: int, waiting: int) -> None:
    async with owner_connection(works.api) as owner:
        await owner.execute(
            "INSERT INTO spine.tasks (workspace_id, id, project_id, title, assignee_id, due_at, status) "
            "SELECT $1, 'tsk_' || lpad(n::text, 26, '0'), $2, 't', $3, now() + make_interval(hours => 9000 - n), "
            "CASE WHEN n <= $4::int THEN 'cancelled' ELSE 'open' END FROM generate_series(1, $4::int + $5::int) n",
            *(works.account.workspace_id, project_id, user_id, ended, waiting),
        )
        await owner.execute("ANALYZE spine.tasks")


def test_a_queue_is_capped_and_says_so(works: Works, api: Api) -> None:
    """Of 201 tasks a queue shows the 200 most urgent ones and `truncated`; it takes one query, by its index."""
    project_id, user_id = works.project(), works.user()
    asyncio.run(_fill(works, project_id, user_id, ended=5000, waiting=201))
    statements: list[tuple[str, Any]] = []
    engine = api.app.state.platform.engine.sync_engine

    def record(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        statements.append((statement, values))

    engine_event.listen(engine, "before_cursor_execute", record)
    try:
        queue = works.get(f"queues/{user_id}")
    finally:
        engine_event.remove(engine, "before_cursor_execute", record)
    assert len(statements) == 2  # the first one begins every read
    assert (len(queue["data"]), queue["truncated"]) == (200, True)
    assert queue["data"][0]["id"].endswith("5201")

    async def plan() -> str:
        statement, values = statements[1]
        async with owner_connection(api) as owner:
            rows = await owner.fetch(f"EXPLAIN {statement}", *values)
        return "\n".join(row[0] for row in rows)

    assert "tasks_queue" in asyncio.run(plan())
