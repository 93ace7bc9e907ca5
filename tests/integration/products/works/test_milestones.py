"""Milestones: reached once and for ever, and the board that shows how far a project is."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import event as engine_event

from tests.api import Api, Organisation
from tests.database import owner_connection
from tests.works_client import Works

FORCE = {"force": True, "reason": "the client waits"}


async def test_concurrent_reaches_reach_once(api: Api, org: Organisation, works: Works) -> None:
    """Of 50 concurrent reaches one is 200, the others are 409, and there is one event `milestone.reached` (W-06)."""
    milestone_id = await asyncio.to_thread(lambda: works.milestone(works.project()))
    async with org.test.async_client() as http:
        answers = await asyncio.gather(*(http.post(f"/works/v1/milestones/{milestone_id}/reach") for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 49]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"illegal_transition"}
    assert len(await asyncio.to_thread(works.events, "milestone.reached")) == 1


def test_open_tasks_block_reaching(works: Works) -> None:
    """Tasks that are open or in progress block with 409 and their ids; done, cancelled and other tasks do not (W-06)."""
    project_id = works.project()
    milestone_id, other = works.milestone(project_id), works.milestone(project_id, name="Other")
    waiting, started, done, cancelled = (works.task(project_id, milestone_id=milestone_id) for _ in range(4))
    works.task(project_id, milestone_id=other)
    works.task(project_id)
    works.patch(f"tasks/{started}", {"status": "in_progress"})
    works.act(f"tasks/{done}/complete")
    works.act(f"tasks/{cancelled}/cancel")
    blocked = works.act(f"milestones/{milestone_id}/reach", status=409)
    assert (blocked["code"], blocked["allowed"]) == ("open_tasks", ["skipped"])
    assert [one["param"] for one in blocked["errors"]] == [waiting, started]
    no_reason = works.act(f"milestones/{milestone_id}/reach", {"force": True}, status=422)
    assert (no_reason["code"], no_reason["param"]) == ("reason_required", "reason")
    assert works.get(f"milestones/{milestone_id}")["status"] == "pending"
    reached = works.act(f"milestones/{milestone_id}/reach", FORCE)
    assert reached["status"] == "reached"
    assert reached["reached_by"]["type"] == "api_key"
    assert reached["reached_at"] is not None
    [event] = works.events("milestone.reached")
    assert event["data"] == reached | {"forced": True, "reason": FORCE["reason"]}
    assert event["actor"] == reached["reached_by"]


@pytest.mark.parametrize("action", ["reach", "skip"])
@pytest.mark.parametrize("state", ["pending", "reached", "skipped"])
def test_the_transitions_of_milestones(works: Works, state: str, action: str) -> None:
    """From pending a milestone is reached or skipped; from there nothing moves it, the same state included."""
    milestone_id = works.milestone(works.project())
    if state != "pending":
        works.act(f"milestones/{milestone_id}/{ {'reached': 'reach', 'skipped': 'skip'}[state] }")
    answer = works.http.post(f"/works/v1/milestones/{milestone_id}/{action}")
    if state == "pending":
        assert (answer.status_code, answer.json()["status"]) == (200, {"reach": "reached", "skip": "skipped"}[action])
    else:
        assert (answer.status_code, answer.json()["code"], answer.json()["allowed"]) == (409, "illegal_transition", [])


def test_a_pending_milestone_changes(works: Works) -> None:
    """PATCH changes a pending milestone, and its event says what; an ended one is 409."""
    milestone_id = works.milestone(works.project(), billing={"amount_minor": 5, "currency": "INR"})
    changed = works.patch(
        f"milestones/{milestone_id}", {"position": 7, "due_at": "2030-01-01T00:00:00Z", "billing": None}
    )
    assert (changed["position"], changed["billing"], changed["due_at"]) == (7, None, "2030-01-01T00:00:00Z")
    [event] = works.events("milestone.updated")
    assert {change["field"] for change in event["data"]["changes"]} == {"position", "due_at", "billing"}
    works.act(f"milestones/{milestone_id}/skip", {"reason": "not wanted"})
    assert works.events("milestone.skipped")[0]["data"]["reason"] == "not wanted"
    assert works.patch(f"milestones/{milestone_id}", {"name": "x"}, status=409)["allowed"] == []


def test_a_milestone_belongs_to_a_project_of_the_workspace(works: Works, api: Api) -> None:
    """An unknown and a foreign project are the same 422 `reference_not_found`."""
    foreign_account = api.sign_up("Other").test
    with foreign_account.client() as http:
        theirs = Works(http, api, foreign_account).project()
    for project_id in (theirs, "prj_01J9X0000000000000000000ZZ", "nonsense"):
        for path, body in (("milestones", {"name": "x", "position": 1}), ("tasks", {"title": "x"})):
            refused = works.post(path, {"project_id": project_id, **body}, status=422)
            assert (refused["code"], refused["param"]) == ("reference_not_found", "project_id")


def test_a_project_has_a_bounded_number_of_milestones(works: Works) -> None:
    """The 201st milestone of a project is 409, so that a board has a bound."""
    for number in range(4):
        works.post("templates", {"slug": "all", "milestones": [{"name": f"{number}.{n}"} for n in range(50)]})
    project_id = works.project(template="all")

    async def fill() -> None:
        async with owner_connection(works.api) as owner:
            await owner.execute(
                "INSERT INTO spine.milestones (workspace_id, id, project_id, name, position) "
                "SELECT $1, 'mst_' || n, $2, 'm', n FROM generate_series(1, 150) n",
                works.account.workspace_id,
                project_id,
            )

    asyncio.run(fill())
    assert works.post("milestones", {"project_id": project_id, "name": "x", "position": 1}, status=409)["code"] == (
        "too_many_milestones"
    )


def test_the_board_is_one_query(works: Works, api: Api) -> None:
    """A project's milestones come in their order, with the counts of their tasks, in one call and one query (W-14, P-27)."""
    project_id = works.project()
    second, first = works.milestone(project_id, position=2), works.milestone(project_id, position=1)
    states = ("open", "open", "in_progress", "done", "cancelled")
    for state in states:
        task_id = works.task(project_id, milestone_id=first)
        if state == "in_progress":
            works.patch(f"tasks/{task_id}", {"status": state})
        elif state != "open":
            works.act(f"tasks/{task_id}/{ {'done': 'complete', 'cancelled': 'cancel'}[state] }")
    works.task(project_id)
    statements: list[str] = []
    engine = api.app.state.platform.engine.sync_engine

    def record(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    engine_event.listen(engine, "before_cursor_execute", record)
    try:
        board = works.get(f"projects/{project_id}/milestones")
    finally:
        engine_event.remove(engine, "before_cursor_execute", record)
    assert len(statements) == 2  # the first one begins every read
    assert [one["id"] for one in board["data"]] == [first, second]
    assert board["data"][0]["tasks"] == {"open": 2, "in_progress": 1, "done": 1, "cancelled": 1, "overdue": 0}
    assert set(board["data"][1]["tasks"].values()) == {0}
    assert works.get(f"projects/{works.project()}/milestones")["data"] == []
    works.get("projects/prj_01J9X0000000000000000000ZZ/milestones", status=404)
