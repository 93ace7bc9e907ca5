"""Works under test: a client that makes projects, milestones and tasks, and the events that they emit."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from tests.api import Account, Api, unique_key
from tests.database import owner_connection


@dataclass(frozen=True, slots=True)
class Works:
    """The routes of Works in one workspace."""

    http: httpx.Client
    api: Api
    account: Account

    def post(self, path: str, body: Any = None, *, status: int = 201) -> Any:
        """Post to a path under /works/v1. The response must have this status. Returns its body."""
        answer = self.http.post(f"/works/v1/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def act(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        """Call an action."""
        return self.post(path, body, status=status)

    def patch(self, path: str, body: Any, *, status: int = 200) -> Any:
        """Change an object."""
        answer = self.http.patch(f"/works/v1/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def get(self, path: str, *, status: int = 200) -> Any:
        """Read a path under /works/v1."""
        answer = self.http.get(f"/works/v1/{path}")
        assert answer.status_code == status, answer.text
        return answer.json()

    def user(self, name: str = "Asha") -> str:
        """Add a user. Returns the id."""
        made = self.http.post("/v1/users", json={"name": name, "email": f"{unique_key().lower()}@example.com"})
        assert made.status_code == 201, made.text
        id: str = made.json()["id"]
        return id

    def project(self, **more: Any) -> str:
        """Open a project directly. Returns the id."""
        body = {"name": "Site fit-out", **more}
        id: str = self.post("projects", body if "owner_id" in body else {**body, "owner_id": self.user()})["id"]
        return id

    def milestone(self, project_id: str, **more: Any) -> str:
        """Add a milestone. Returns the id."""
        id: str = self.post("milestones", {"project_id": project_id, "name": "Design", "position": 1, **more})["id"]
        return id

    def task(self, project_id: str, **more: Any) -> str:
        """Add a task. Returns the id."""
        id: str = self.post("tasks", {"project_id": project_id, "title": "Paint", **more})["id"]
        return id

    def deal(self, *, win: bool = True, **more: Any) -> Any:
        """Open a deal of a new contact, and win it."""
        contact = self.http.post("/crm/v1/contacts", json={"name": "Meera"}).json()
        body = {"contact_id": contact["id"], "name": "Fit-out of the site", "value_minor": 100_000, "currency": "INR"}
        made = self.http.post("/crm/v1/deals", json=body | more)
        assert made.status_code == 201, made.text
        if win:
            won = self.http.post(f"/crm/v1/deals/{made.json()['id']}/win", json={})
            assert won.status_code == 200, won.text
            return won.json()
        return made.json()

    def events(self, *types: str) -> list[dict[str, Any]]:
        """Return the events of the workspace of these types, oldest first, as subscribers get them."""

        async def fetch() -> list[dict[str, Any]]:
            async with owner_connection(self.api) as owner:
                rows = await owner.fetch(
                    "SELECT body FROM spine.events WHERE workspace_id = $1 AND type = ANY ($2::text[]) ORDER BY id",
                    self.account.workspace_id,
                    list(types),
                )
            return [orjson.loads(row["body"]) for row in rows]

        return asyncio.run(fetch())
