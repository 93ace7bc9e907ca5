"""Projects: from a won deal or directly, and the end of them."""

import asyncio
from typing import Any

import httpx
import pytest

from spine.kernel import ids
from tests.api import Api, Organisation
from tests.works_client import Works

PRINTED = '{ "deal_id": "dl_01J9X...", "name": "Site fit-out", "owner_id": "usr_01J9X...", "template": "fitout_v2" }'
FORCE = {"force": True, "reason": "the client waits"}


def refused(answer: httpx.Response, status: int, code: str, param: str | None = None) -> Any:
    """Check a refusal, and return it."""
    assert answer.status_code == status, answer.text
    assert (answer.json()["code"], answer.json().get("param")) == (code, param)
    return answer.json()


def test_the_printed_curl(works: Works, org: Organisation) -> None:
    """The call on the product's page, word for word, answers 201 with a project of the won deal (W-02)."""
    works.post("templates", {"slug": "fitout_v2", "milestones": [{"name": "Design", "offset_days": 7}]})
    deal, user_id = works.deal(), works.user()
    with httpx.Client(trust_env=False) as curl:
        answer = curl.post(
            f"{works.api.url}/works/v1/projects",
            headers={
                "Authorization": f"Bearer {org.test.key}",
                "Idempotency-Key": "9f2c-4d1a-...-e7b3",
                "Content-Type": "application/json",
            },
            content=PRINTED.replace("dl_01J9X...", deal["id"]).replace("usr_01J9X...", user_id),
        )
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert ids.is_id(made["id"], "prj")
    assert made["origin"] == "won_deal"
    assert (made["deal_id"], made["contact_id"], made["owner_id"]) == (deal["id"], deal["contact_id"], user_id)
    assert (made["template"], made["template_version"], made["status"]) == ("fitout_v2", 1, "active")
    [created] = works.events("project.created")
    assert created["data"] == made
    assert answer.headers["location"] == f"/works/v1/projects/{made['id']}"


def test_a_project_is_opened_directly(works: Works) -> None:
    """Without a deal the origin is `direct`; name and owner are required then (W-04)."""
    made = works.post("projects", {"name": "Garden", "owner_id": works.user()})
    assert (made["origin"], made["deal_id"], made["contact_id"]) == ("direct", None, None)
    assert works.events("project.created")[0]["data"]["origin"] == "direct"
    refused(works.http.post("/works/v1/projects", json={"owner_id": works.user()}), 422, "missing", "name")
    refused(works.http.post("/works/v1/projects", json={"name": "Garden"}), 422, "missing", "owner_id")


def test_a_won_deal_gives_what_is_left_out(works: Works) -> None:
    """With the deal alone the project has its name, owner and contact, so that an agent scaffolds with two arguments (W-13)."""
    owner_id = works.user()
    deal = works.deal(owner_id=owner_id)
    made = works.post("projects", {"deal_id": deal["id"]})
    assert (made["name"], made["owner_id"], made["contact_id"]) == (deal["name"], owner_id, deal["contact_id"])


def test_a_deal_that_is_not_won_opens_no_project(works: Works) -> None:
    """An open or a lost deal is 409 `deal_not_won` (X13)."""
    body = {"name": "x", "owner_id": works.user()}
    open_deal, lost = works.deal(win=False), works.deal(win=False)
    assert works.http.post(f"/crm/v1/deals/{lost['id']}/lose", json={"lost_reason": "price"}).status_code == 200
    for deal in (open_deal, lost):
        refused(
            works.http.post("/works/v1/projects", json=body | {"deal_id": deal["id"]}), 409, "deal_not_won", "deal_id"
        )
    assert works.get("projects")["data"] == []


@pytest.mark.parametrize(
    ("param", "prefix"), [("deal_id", "dl"), ("owner_id", "usr"), ("contact_id", "ctc"), ("template", None)]
)
def test_unknown_and_foreign_references_are_the_same(works: Works, api: Api, param: str, prefix: str | None) -> None:
    """A reference to nothing, or to another workspace's object, is the identical 422 `reference_not_found` (W-01)."""
    foreign_account = api.sign_up("Other").test
    with foreign_account.client() as http:
        foreign = Works(http, api, foreign_account)
        deal = foreign.deal()
        foreign.post("templates", {"slug": "theirs"})
        theirs = {
            "deal_id": deal["id"], "owner_id": foreign.user(), "contact_id": deal["contact_id"], "template": "theirs",
        }[param]  # fmt: skip
    body = {"name": "x", "owner_id": works.user()}
    answers = []
    for value in (theirs, ids.mint(prefix) if prefix else "unknown", "nonsense"):
        answer = works.http.post("/works/v1/projects", json=body | {param: value})
        answers.append(refused(answer, 422, "reference_not_found", param) | {"request_id": ""})
    assert answers[0] == answers[1] == answers[2]


def test_another_contact_than_the_deals_is_refused(works: Works) -> None:
    """A project of a deal is for the deal's contact."""
    other = works.deal()["contact_id"]
    body = {"deal_id": works.deal()["id"], "name": "x", "owner_id": works.user(), "contact_id": other}
    refused(works.http.post("/works/v1/projects", json=body), 422, "contact_mismatch", "contact_id")


def test_a_change_is_told(works: Works) -> None:
    """PATCH changes name, owner, contact and metadata, and its event says what changed; the status moves by actions alone."""
    project_id = works.project()
    changed = works.patch(f"projects/{project_id}", {"name": "Garden", "metadata": {"k": "v"}})
    assert (changed["name"], changed["version"]) == ("Garden", 2)
    [event] = works.events("project.updated")
    assert {change["field"]: change["new"] for change in event["data"]["changes"]} == {
        "name": "Garden", "metadata": {"k": "v"},
    }  # fmt: skip
    assert event["sequence"] == 2
    works.patch(f"projects/{project_id}", {"status": "closed"}, status=422)
    stale = works.http.patch(f"/works/v1/projects/{project_id}", json={"name": "x"}, headers={"If-Match": '"1"'})
    refused(stale, 409, "version_conflict", "If-Match")


def test_lists_are_filtered(works: Works) -> None:
    """Projects are listed by status, owner, contact and deal."""
    owner_id, deal = works.user(), works.deal()
    first = works.post("projects", {"deal_id": deal["id"], "name": "a", "owner_id": owner_id})["id"]
    second = works.project(owner_id=owner_id)
    works.act(f"projects/{second}/hold")
    works.project()

    def listed(query: str) -> list[str]:
        return [one["id"] for one in works.get(f"projects?{query}")["data"]]

    assert listed(f"owner_id={owner_id}") == [second, first]
    assert listed(f"owner_id={owner_id}&status=on_hold") == listed("status=on_hold") == [second]
    assert listed(f"deal_id={deal['id']}") == listed(f"contact_id={deal['contact_id']}") == [first]


ACTIONS = {"hold": "on_hold", "resume": "active", "close": "closed"}
LEGAL = {("active", "hold"), ("on_hold", "resume"), ("active", "close")}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", ["active", "on_hold", "closed"])
def test_the_transitions_of_projects(works: Works, state: str, action: str) -> None:
    """Of all states and actions the legal ones move the project, the others are 409 with the allowed states (W-08)."""
    project_id = works.project()
    for step in {"active": [], "on_hold": ["hold"], "closed": ["close"]}[state]:
        works.act(f"projects/{project_id}/{step}")
    answer = works.http.post(f"/works/v1/projects/{project_id}/{action}")
    if (state, action) in LEGAL:
        assert (answer.status_code, answer.json()["status"]) == (200, ACTIONS[action])
    else:
        allowed = sorted(ACTIONS[step] for before, step in LEGAL if before == state)
        assert refused(answer, 409, "illegal_transition")["allowed"] == allowed
        assert works.get(f"projects/{project_id}")["status"] == state


def test_pending_milestones_keep_a_project_open(works: Works) -> None:
    """Closing needs every milestone reached or skipped; else 409 with the open ones, or force and a reason (W-08)."""
    project_id = works.project()
    reached, skipped, pending = (works.milestone(project_id, name=name) for name in ("a", "b", "c"))
    works.act(f"milestones/{reached}/reach")
    works.act(f"milestones/{skipped}/skip")
    path = f"/works/v1/projects/{project_id}/close"
    blocked = refused(works.http.post(path), 409, "open_milestones")
    assert [(one["param"], one["detail"]) for one in blocked["errors"]] == [(pending, "c")]
    refused(works.http.post(path, json={"force": True}), 422, "reason_required", "reason")
    closed = works.act(f"projects/{project_id}/close", FORCE)
    assert (closed["status"], closed["close_reason"]) == ("closed", FORCE["reason"])
    assert closed["closed_at"] is not None
    [event] = works.events("project.closed")
    assert event["data"] == closed | {"forced": True}


def test_a_refusal_lists_a_bounded_number_of_items(works: Works) -> None:
    """Of many open milestones a refusal lists the first twenty."""
    milestones = [{"name": f"m{n:02}", "offset_days": 1} for n in range(30)]
    works.post("templates", {"slug": "long", "milestones": milestones})
    project_id = works.project(template="long")
    blocked = works.act(f"projects/{project_id}/close", status=409)
    assert [one["detail"] for one in blocked["errors"]] == [f"m{n:02}" for n in range(20)]


def test_nothing_of_a_closed_project_changes(works: Works) -> None:
    """A closed project, its milestones and its tasks are final: every change is 409 `project_closed`."""
    project_id, user_id = works.project(), works.user()
    milestone_id, task_id = works.milestone(project_id), works.task(project_id, assignee_id=user_id)
    works.act(f"projects/{project_id}/close", FORCE)
    calls: list[tuple[str, str, Any]] = [
        ("PATCH", f"projects/{project_id}", {"name": "x"}),
        ("PATCH", f"milestones/{milestone_id}", {"name": "x"}),
        ("POST", f"milestones/{milestone_id}/reach", FORCE),
        ("POST", f"milestones/{milestone_id}/skip", None),
        ("PATCH", f"tasks/{task_id}", {"title": "x"}),
        *(("POST", f"tasks/{task_id}/{action}", None) for action in ("complete", "reopen", "cancel")),
        ("POST", f"tasks/{task_id}/assign", {"assignee_id": works.user()}),
        ("POST", "milestones", {"project_id": project_id, "name": "x", "position": 1}),
        ("POST", "tasks", {"project_id": project_id, "title": "x"}),
    ]
    for method, path, body in calls:
        refused(works.http.request(method, f"/works/v1/{path}", json=body), 409, "project_closed")


def test_closing_cancels_what_is_open(works: Works) -> None:
    """Tasks that are open when a project is closed are cancelled, each with its event, and leave the queues; others stay."""
    project_id, user_id = works.project(), works.user()
    done = works.task(project_id, assignee_id=user_id)
    works.act(f"tasks/{done}/complete")
    left = [works.task(project_id, assignee_id=user_id, due_at="2030-01-01T00:00:00Z") for _ in range(3)]
    works.patch(f"tasks/{left[0]}", {"status": "in_progress"})
    works.act(f"projects/{project_id}/close")
    assert works.get(f"queues/{user_id}")["data"] == []
    assert works.get(f"tasks/{done}")["status"] == "done"
    cancelled = works.events("task.cancelled")
    assert [event["data"]["id"] for event in cancelled] == left
    for event in cancelled:
        assert event["data"] == works.get(f"tasks/{event['data']['id']}") | {"reason": "the project was closed"}
        assert event["sequence"] == event["data"]["version"]


async def test_no_task_slips_into_a_closed_project(org: Organisation, works: Works) -> None:
    """Tasks that are added, started or reopened while a project is closed are cancelled by it or refused: none is left open."""
    for _ in range(6):
        project_id = await asyncio.to_thread(works.project)
        done = [await asyncio.to_thread(works.task, project_id) for _ in range(3)]
        for task_id in done:
            await asyncio.to_thread(works.act, f"tasks/{task_id}/complete")
        body = {"project_id": project_id, "title": "late"}
        async with org.test.async_client() as http:
            answers = await asyncio.gather(
                *(http.post("/works/v1/tasks", json=body) for _ in range(6)),
                http.post(f"/works/v1/projects/{project_id}/close"),
                *(http.post(f"/works/v1/tasks/{task_id}/reopen") for task_id in done),
                *(http.post("/works/v1/tasks", json=body) for _ in range(6)),
            )
        assert {answer.status_code for answer in answers} <= {200, 201, 409}
        tasks = (await asyncio.to_thread(works.get, f"tasks?project_id={project_id}&limit=100"))["data"]
        assert {task["status"] for task in tasks} <= {"done", "cancelled"}
