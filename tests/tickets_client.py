"""Calls of the tickets' API, for tests."""

from dataclasses import dataclass
from typing import Any

import httpx

from tests.api import unique_key

BASE = "/tickets/v1"


@dataclass(frozen=True, slots=True)
class TicketsClient:
    """A workspace's calls. Each returns the answer's body and expects it to be a success."""

    http: httpx.Client

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Make a call."""
        answer = self.http.request(method, path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def post(self, path: str, **body: Any) -> Any:
        """POST below /tickets/v1."""
        return self.call("POST", f"{BASE}/{path}", **body)

    def patch(self, path: str, **body: Any) -> Any:
        """PATCH below /tickets/v1."""
        return self.call("PATCH", f"{BASE}/{path}", **body)

    def get(self, path: str, **query: Any) -> Any:
        """GET below /tickets/v1."""
        answer = self.http.get(f"{BASE}/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refused(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, str | None]:
        """Make a call that fails. Returns status, code and param."""
        answer = self.http.request(method, f"{BASE}/{path}", json=body, headers=headers)
        assert answer.status_code >= 400, answer.text
        problem = answer.json()
        return answer.status_code, problem["code"], problem.get("param")

    def user(self) -> str:
        """Create a user, and return its id."""
        made: str = self.call("POST", "/v1/users", name="Ann", email=f"{unique_key()}@example.com")["id"]
        return made

    def contact(self, **fields: Any) -> str:
        """Create a contact, and return its id."""
        made: str = self.call("POST", "/crm/v1/contacts", name="Meera", **fields)["id"]
        return made

    def ticket(self, **fields: Any) -> Any:
        """Create a ticket, of a new contact unless one is given."""
        fields = {"subject": "Part delayed", "source": "api", **fields}
        if "contact_id" not in fields:
            fields["contact_id"] = self.contact()
        return self.post("tickets", **fields)

    def default_route(self) -> Any:
        """Create the default route."""
        return self.post("routing_rules", topic=None, owner_id=self.user())

    def events(self, *types: str, of: str | None = None) -> list[Any]:
        """Return the events of these types, oldest first; only those of one object if it is given."""
        found = self.http.get("/v1/events", params={"type": list(types), "limit": 100}).json()["data"]
        return [event for event in found if of is None or of in (event["data"]["id"], event["data"].get("ticket_id"))]

    def kinds(self, of: str) -> list[str]:
        """Return the types of the events of one ticket, in order."""
        return [event["type"] for event in self.events("ticket.*", of=of)]

    def advance(self, seconds: float) -> None:
        """Move the test clock."""
        self.call("POST", "/v1/test_helpers/clock", advance_s=seconds)
