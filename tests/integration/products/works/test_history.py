"""The timeline of a project tells its whole story: replayed, it gives the present state (W-08)."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api import Api
from tests.job_engine import job_runner
from tests.works_client import Works

UNTRACKED = {"id", "object", "created_at", "updated_at", "version"}
STEPS = st.sampled_from(
    ["task", "assigned task", "milestone", "start", "complete", "reopen", "cancel", "assign", "unassign", "rename", "move",
     "reach", "skip", "hold", "resume", "close", "overdue"]
)  # fmt: skip


def replay(works: Works, project_id: str) -> dict[str, dict[str, Any]]:
    """Fold the timeline: the fields of each object that it names."""
    state: dict[str, dict[str, Any]] = {}
    cursor = ""
    while True:
        page = works.get(f"projects/{project_id}/timeline?limit=7{cursor}")
        for entry in page["data"]:
            fields = state.setdefault(entry["detail"]["id"], {})
            for change in entry["changes"]:
                assert fields.get(change["field"]) == change["old"], entry
                fields[change["field"]] = change["new"]
            assert entry["actor"]["type"] in ("api_key", "system")
        if not page["has_more"]:
            return state
        cursor = f"&cursor={page['next_cursor']}"


def present(works: Works, project_id: str) -> dict[str, dict[str, Any]]:
    """Return the objects of a project as the API shows them, without what an entry does not tell."""
    objects = [works.get(f"projects/{project_id}")]
    for kind in ("milestones", "tasks"):
        objects += works.get(f"{kind}?project_id={project_id}&limit=100")["data"]
    return {
        one["id"]: {name: value for name, value in one.items() if name not in UNTRACKED and value is not None}
        for one in objects
    }


def take(works: Works, api: Api, step: str, project_id: str, known: dict[str, list[str]], user_id: str) -> None:
    """Take a step, whether the present state allows it or not."""
    post, newest = works.http.post, {kind: ids[-1] for kind, ids in known.items() if ids}
    if step in ("task", "assigned task", "milestone"):
        kind = "milestones" if step == "milestone" else "tasks"
        body: dict[str, Any] = {"project_id": project_id}
        body |= (
            {"name": "Design", "position": 1}
            if kind == "milestones"
            else {"title": "Paint", "due_at": "2020-01-01T00:00:00Z"}
        )
        if step == "assigned task":
            body |= {"assignee_id": user_id, "milestone_id": newest.get("milestones")}
        answer = post(f"/works/v1/{kind}", json=body)
        known[kind] += [answer.json()["id"]] if answer.status_code == 201 else []
    elif step == "overdue":
        asyncio.run(_run_jobs(api))
    elif step in ("hold", "resume", "close"):
        post(
            f"/works/v1/projects/{project_id}/{step}", json={"force": True, "reason": "x"} if step == "close" else None
        )
    elif step in ("reach", "skip"):
        post(f"/works/v1/milestones/{newest.get('milestones', 'mst')}/{step}")
    elif step in ("start", "rename", "move"):
        change = {
            "start": {"status": "in_progress"},
            "rename": {"title": "Clean"},
            "move": {"due_at": "2021-01-01T00:00:00Z"},
        }
        works.http.patch(f"/works/v1/tasks/{newest.get('tasks', 'tsk')}", json=change[step])
    elif step in ("assign", "unassign"):
        to = user_id if step == "assign" else None
        post(f"/works/v1/tasks/{newest.get('tasks', 'tsk')}/assign", json={"assignee_id": to})
    else:
        post(f"/works/v1/tasks/{newest.get('tasks', 'tsk')}/{step}")


async def _run_jobs(api: Api) -> None:
    async with job_runner(api) as runner:
        await runner.run_due()


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=5, max_size=15))
def test_the_timeline_replays_to_the_present_state(works: Works, api: Api, steps: list[str]) -> None:
    """Whatever is done to a project, its milestones and tasks, the changes of its timeline add up to what they are now."""
    user_id = works.user()
    project_id = works.project(owner_id=user_id)
    known: dict[str, list[str]] = {"milestones": [], "tasks": []}
    for step in steps:
        take(works, api, step, project_id, known, user_id)
    told = {
        id: {name: value for name, value in fields.items() if value is not None}
        for id, fields in replay(works, project_id).items()
    }
    assert told == present(works, project_id)


def test_a_scaffolded_project_replays_too(works: Works) -> None:
    """What a template gave is in the timeline, after the opening; a forced closing says why."""
    tasks = [{"title": "Measure", "milestone": "Design", "offset_days": 2}]
    works.post("templates", {"slug": "small", "milestones": [{"name": "Design"}], "tasks": tasks})
    project_id = works.project(template="small")
    works.act(f"projects/{project_id}/close", {"force": True, "reason": "the client left"})
    entries = works.get(f"projects/{project_id}/timeline")["data"]
    assert [entry["kind"] for entry in entries] == [
        "project.created", "milestone.created", "task.created", "task.cancelled", "project.closed",
    ]  # fmt: skip
    assert entries[-1]["detail"] == {"id": project_id, "forced": True}
    assert {change["field"]: change["new"] for change in entries[-1]["changes"]}["close_reason"] == "the client left"
    told = replay(works, project_id)
    assert {
        id: {name: value for name, value in fields.items() if value is not None} for id, fields in told.items()
    } == (present(works, project_id))
