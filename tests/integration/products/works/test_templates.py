"""Templates: versions that never change, and projects that start with their milestones and tasks, all or nothing."""

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import event as engine_event

from tests.api import Api, Organisation
from tests.database import owner_connection
from tests.works_client import Works

BILLING = {"amount_minor": 250_000, "currency": "INR", "description": "Design phase"}
FITOUT: dict[str, Any] = {
    "slug": "fitout_v2",
    "milestones": [{"name": "Design", "offset_days": 7, "billing": BILLING}, {"name": "Handover", "offset_days": 30}],
    "tasks": [
        {"title": "Measure", "milestone": "Design", "offset_days": 2},
        {"title": "Draw", "milestone": "Design", "offset_days": 5},
        {"title": "Clean", "milestone": "Handover"},
        {"title": "Call the client", "offset_days": 0},
    ],
}


def test_a_template_scaffolds_a_project(works: Works) -> None:
    """Milestones and tasks stand in the new project, in order, due so many days after it was opened, with their events (W-03)."""
    works.post("templates", FITOUT)
    project = works.post("projects", {"name": "x", "owner_id": works.user(), "template": "fitout_v2"})
    opened = datetime.fromisoformat(project["created_at"])
    board = works.get(f"projects/{project['id']}/milestones")["data"]
    assert [(one["name"], one["billing"], one["tasks"]["open"]) for one in board] == [
        ("Design", BILLING, 2), ("Handover", None, 1),
    ]  # fmt: skip
    assert datetime.fromisoformat(board[0]["due_at"]) == opened + timedelta(days=7)
    tasks = {one["title"]: one for one in works.get(f"tasks?project_id={project['id']}")["data"]}
    assert tasks["Clean"]["due_at"] is None
    assert datetime.fromisoformat(tasks["Draw"]["due_at"]) == opened + timedelta(days=5)
    assert tasks["Call the client"]["milestone_id"] is None
    assert tasks["Clean"]["milestone_id"] == board[1]["id"]
    assert len(works.events("milestone.created")) == 2
    assert [event["data"]["title"] for event in works.events("task.created")] == [
        one["title"] for one in FITOUT["tasks"]
    ]


def test_versions_are_immutable_and_projects_keep_theirs(works: Works) -> None:
    """Each create is the next version; new projects take the newest, old ones keep what they were made with (W-03)."""
    first = works.post("templates", FITOUT)
    old = works.project(template="fitout_v2")
    second = works.post("templates", {"slug": "fitout_v2", "milestones": [{"name": "All"}]})
    assert (first["version"], second["version"]) == (1, 2)
    assert first["object"] == "template"
    assert first["id"].startswith("tpl_")
    assert works.get(f"projects/{old}")["template_version"] == 1
    assert [one["name"] for one in works.get(f"projects/{old}/milestones")["data"]] == ["Design", "Handover"]
    new = works.project(template="fitout_v2")
    assert works.get(f"projects/{new}")["template_version"] == 2
    assert works.get(f"templates/{first['id']}") == first
    assert [one["version"] for one in works.get("templates?slug=fitout_v2")["data"]] == [2, 1]
    assert works.http.patch(f"/works/v1/templates/{first['id']}", json={}).status_code == 405
    assert [event["data"]["id"] for event in works.events("template.created")] == [first["id"], second["id"]]


async def test_concurrent_versions_have_no_gaps(api: Api, org: Organisation) -> None:
    """Of 50 versions that are made at the same time each has its own number, from 1 to 50."""
    async with org.test.async_client() as http:
        made = await asyncio.gather(*(http.post("/works/v1/templates", json={"slug": "many"}) for _ in range(50)))
    assert sorted(one.json()["version"] for one in made) == list(range(1, 51))


def test_a_template_is_checked(works: Works) -> None:
    """Names that stand twice, tasks of unknown milestones and too many of either are 422 and name the field."""

    def refused(body: Any) -> tuple[str, str]:
        problem = works.post("templates", {"slug": "x", **body}, status=422)
        return problem["code"], problem["param"]

    two = [{"name": "a"}, {"name": "b"}, {"name": "a"}]
    assert refused({"milestones": two}) == ("duplicate_name", "milestones.2.name")
    stray = {"tasks": [{"title": "t"}, {"title": "u", "milestone": "nowhere"}]}
    assert refused(stray) == ("reference_not_found", "tasks.1.milestone")
    assert refused({"milestones": [{"name": f"m{n}"} for n in range(51)]})[1] == "milestones"
    assert refused({"tasks": [{"title": "t"}] * 201})[1] == "tasks"
    assert refused({"slug": "No Slug"})[1] == "slug"
    assert (
        refused({"milestones": [{"name": "a", "billing": {"amount_minor": -1, "currency": "INR"}}]})[0]
        == "validation_failed"
    )


def test_scaffolding_takes_few_statements(works: Works, api: Api) -> None:
    """However much a template has, its milestones and tasks are written with a fixed number of statements."""
    statements: list[str] = []
    engine = api.app.state.platform.engine.sync_engine

    def record(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    counts = []
    for slug, size in (("few", 2), ("most", 50)):
        milestones = [{"name": f"m{n}", "offset_days": n} for n in range(size)]
        tasks = [{"title": f"t{n}", "milestone": f"m{n % size}", "offset_days": n} for n in range(4 * size)]
        works.post("templates", {"slug": slug, "milestones": milestones, "tasks": tasks})
        body = {"name": "x", "owner_id": works.user(), "template": slug}
        statements.clear()
        engine_event.listen(engine, "before_cursor_execute", record)
        try:
            works.post("projects", body)
        finally:
            engine_event.remove(engine, "before_cursor_execute", record)
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 12


async def test_a_project_is_whole_or_not_there(api: Api, org: Organisation) -> None:
    """While connections of the database die at any moment, each project has all its milestones and tasks, or does not exist."""
    async with org.test.async_client() as http, owner_connection(api) as owner:
        milestones = [{"name": f"m{n}"} for n in range(20)]
        tasks = [{"title": f"t{n}", "milestone": f"m{n % 20}", "offset_days": n} for n in range(100)]
        body: dict[str, Any] = {"slug": "big", "milestones": milestones, "tasks": tasks}
        (await http.post("/works/v1/templates", json=body)).raise_for_status()
        user = await http.post("/v1/users", json={"name": "Asha", "email": "asha@example.com"})
        project = {"name": "x", "owner_id": user.json()["id"], "template": "big"}
        made = 0

        async def open_projects() -> None:
            nonlocal made
            for _ in range(12):
                with contextlib.suppress(httpx.HTTPError):
                    answer = await http.post("/works/v1/projects", json=project)
                    made += answer.status_code == 201

        async def kill() -> None:
            while True:
                await owner.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND application_name = 'spine api' AND state <> 'idle' AND random() < 0.3"
                )
                await asyncio.sleep(0.02)

        killer = asyncio.create_task(kill())
        await asyncio.gather(*(open_projects() for _ in range(3)))
        killer.cancel()
        await open_projects()  # undisturbed: some are there, however many of the others were hit
        counts = await owner.fetch(
            "SELECT (SELECT count(*) FROM spine.milestones m WHERE m.project_id = p.id) AS milestones, "
            "(SELECT count(*) FROM spine.tasks t WHERE t.project_id = p.id) AS tasks, "
            "(SELECT count(*) FROM spine.timeline_entries e WHERE e.subject_id = p.id) AS entries, "
            "(SELECT count(*) FROM spine.jobs j JOIN spine.tasks t ON j.subject_id = t.id WHERE t.project_id = p.id) AS jobs "
            "FROM spine.projects p WHERE p.workspace_id = $1",
            org.test.workspace_id,
        )
    assert made > 0
    assert len(counts) >= made
    assert {tuple(row.values()) for row in counts} == {(20, 100, 121, 100)}
