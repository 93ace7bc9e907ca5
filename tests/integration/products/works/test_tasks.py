"""Tasks: their states, who has them, and who did them."""

import asyncio
from typing import Any

import pytest

from tests.api import Api, Organisation
from tests.works_client import Works

MOVES = {"in_progress": None, "done": "complete", "open": "reopen", "cancelled": "cancel"}
"""The state that each move leads to. A task is started by PATCH."""
LEGAL = {
    ("open", "in_progress"), ("open", "done"), ("open", "cancelled"),
    ("in_progress", "done"), ("in_progress", "cancelled"),
    ("done", "open"),
}  # fmt: skip


def move(works: Works, task_id: str, to: str) -> Any:
    """Move a task to a state, and return the response."""
    action = MOVES[to]
    if action is None:
        return works.http.patch(f"/works/v1/tasks/{task_id}", json={"status": to})
    return works.http.post(f"/works/v1/tasks/{task_id}/{action}")


@pytest.mark.parametrize("to", MOVES)
@pytest.mark.parametrize("state", MOVES)
def test_the_transitions_of_tasks(works: Works, state: str, to: str) -> None:
    """Of all pairs of states the legal ones move the task; the others, the same state included, are 409 with what may follow."""
    task_id = works.task(works.project())
    if state != "open":
        assert move(works, task_id, state).status_code == 200
    answer = move(works, task_id, to)
    if (state, to) in LEGAL:
        assert (answer.status_code, answer.json()["status"]) == (200, to)
    else:
        assert (answer.status_code, answer.json()["code"]) == (409, "illegal_transition")
        assert answer.json()["allowed"] == sorted(target for before, target in LEGAL if before == state)
        assert works.get(f"tasks/{task_id}")["status"] == state


@pytest.mark.parametrize("status", ["open", "done", "cancelled", "nonsense", None])
def test_only_starting_is_a_patch(works: Works, status: str | None) -> None:
    """PATCH sets no other status than in_progress; the others are actions."""
    assert works.patch(f"tasks/{works.task(works.project())}", {"status": status}, status=422)["param"] == "status"


def test_done_says_by_whom_and_when(works: Works) -> None:
    """A completed task and its event have the actor and the time; reopening takes them away (W-05)."""
    task_id = works.task(works.project())
    done = works.act(f"tasks/{task_id}/complete")
    [event] = works.events("task.completed")
    assert event["data"] == done
    assert done["completed_by"] == event["actor"]
    assert done["completed_at"] is not None
    reopened = works.act(f"tasks/{task_id}/reopen", {"reason": "the paint is wet"})
    assert (reopened["completed_by"], reopened["completed_at"]) == (None, None)
    assert works.events("task.reopened")[0]["data"] == reopened | {"reason": "the paint is wet"}


def test_there_is_one_event_for_each_assignment(works: Works) -> None:
    """`task.assigned` says from whom and to whom, on creation and on each change; the same assignee is 409 (W-09)."""
    project_id, asha, ravi = works.project(), works.user(), works.user("Ravi")
    works.task(project_id)
    task_id = works.task(project_id, assignee_id=asha)
    works.act(f"tasks/{task_id}/assign", {"assignee_id": ravi})
    refused = works.act(f"tasks/{task_id}/assign", {"assignee_id": ravi}, status=409)
    assert (refused["code"], refused["param"]) == ("same_assignee", "assignee_id")
    works.act(f"tasks/{task_id}/assign", {"assignee_id": None})
    works.act(f"tasks/{task_id}/assign", {"assignee_id": asha})
    found = [(event["data"]["from"], event["data"]["to"]) for event in works.events("task.assigned")]
    assert found == [(None, asha), (asha, ravi), (None, asha)]
    assert [change["field"] for change in works.events("task.updated")[0]["data"]["changes"]] == ["assignee_id"]


async def test_concurrent_assignments_are_as_many_as_their_events(org: Organisation, works: Works) -> None:
    """Of 30 concurrent assignments to one user exactly one assigns, and there is one event."""
    task_id, user_id = await asyncio.to_thread(lambda: (works.task(works.project()), works.user()))
    async with org.test.async_client() as http:
        path, body = f"/works/v1/tasks/{task_id}/assign", {"assignee_id": user_id}
        answers = await asyncio.gather(*(http.post(path, json=body) for _ in range(30)))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 29]
    assert len(await asyncio.to_thread(works.events, "task.assigned")) == 1


def test_a_task_that_has_ended_is_not_assigned(works: Works) -> None:
    """Assigning a done or cancelled task is 409 with what may follow."""
    project_id, user_id = works.project(), works.user()
    for action, allowed in (("complete", ["open"]), ("cancel", [])):
        task_id = works.task(project_id)
        works.act(f"tasks/{task_id}/{action}")
        refused = works.act(f"tasks/{task_id}/assign", {"assignee_id": user_id}, status=409)
        assert (refused["code"], refused["allowed"]) == ("illegal_transition", allowed)


def test_references_are_of_the_workspace_and_the_project(works: Works, api: Api) -> None:
    """A foreign or unknown user, and a milestone of another project, are 422 `reference_not_found`, on creation and change."""
    foreign_account = api.sign_up("Other").test
    with foreign_account.client() as http:
        their_user = Works(http, api, foreign_account).user()
    project_id = works.project()
    elsewhere = works.milestone(works.project())
    task_id = works.task(project_id)
    wrong = [
        ("assignee_id", their_user),
        ("assignee_id", "usr_x"),
        ("milestone_id", elsewhere),
        ("milestone_id", "mst_x"),
    ]
    for param, value in wrong:
        refused = [works.post("tasks", {"project_id": project_id, "title": "x", param: value}, status=422)]
        if param == "milestone_id":
            refused.append(works.patch(f"tasks/{task_id}", {param: value}, status=422))
        else:
            refused.append(works.act(f"tasks/{task_id}/assign", {param: value}, status=422))
        assert {(one["code"], one["param"]) for one in refused} == {("reference_not_found", param)}


def test_lists_are_filtered(works: Works) -> None:
    """Tasks are listed by project, milestone, assignee and status."""
    project_id, user_id = works.project(), works.user()
    milestone_id = works.milestone(project_id)
    plain = works.task(project_id)
    planned = works.task(project_id, milestone_id=milestone_id, assignee_id=user_id)
    works.act(f"tasks/{planned}/complete")
    works.task(works.project())

    def listed(query: str) -> list[str]:
        return [one["id"] for one in works.get(f"tasks?{query}")["data"]]

    assert listed(f"project_id={project_id}") == [planned, plain]
    assert (
        listed(f"milestone_id={milestone_id}") == listed(f"assignee_id={user_id}") == listed("status=done") == [planned]
    )
    assert listed(f"project_id={project_id}&status=open") == [plain]
