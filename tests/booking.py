"""A calendar under test: resources, services, slots and contacts of one workspace, over HTTP."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.api import Api
from tests.database import owner_connection

HOUR = timedelta(hours=1)


def days_ahead(days: float, *, hour: int = 10) -> datetime:
    """A full hour of the day that is so many days ahead."""
    day = datetime.now(UTC) + timedelta(days=days)
    return day.replace(hour=hour, minute=0, second=0, microsecond=0)


@dataclass(frozen=True, slots=True)
class Calendar:
    """The calendar of one workspace."""

    http: httpx.Client

    def post(self, path: str, body: Any = None, *, status: int = 201) -> Any:
        """Make a request that must have this status. Returns the body of the response."""
        answer = self.http.post(f"/calendar/v1/{path}", json={} if body is None else body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def get(self, path: str, **query: Any) -> Any:
        """Read a path. The response must have status 200."""
        answer = self.http.get(f"/calendar/v1/{path}", params={key: value for key, value in query.items() if value})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def resource(self, **more: Any) -> str:
        """Create a resource. Returns its id."""
        return str(self.post("resources", {"name": "Ravi", "time_zone": "Asia/Kolkata"} | more)["id"])

    def service(self, slug: str = "ac_service", **more: Any) -> str:
        """Create a service. Returns its slug."""
        return str(self.post("services", {"slug": slug, "name": "AC service", "duration_min": 60} | more)["slug"])

    def contact(self, **more: Any) -> str:
        """Create a contact. Returns its id."""
        answer = self.http.post("/crm/v1/contacts", json={"name": "Meera"} | more)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def slots(self, resource_id: str, *starts: datetime, length: timedelta = HOUR, **more: Any) -> list[str]:
        """Create a slot at each of these times. Returns their ids."""
        rows = [
            {
                "resource_id": resource_id,
                "starts_at": start.isoformat(),
                "ends_at": (start + length).isoformat(),
                **more,
            }
            for start in starts
        ]
        return [slot["id"] for slot in self.post("slots", {"slots": rows})["data"]]

    def slot(self, **more: Any) -> str:
        """Create a slot three days ahead, of a new resource. Returns its id."""
        return self.slots(self.resource(), days_ahead(3), **more)[0]

    def book(self, slot_id: str, contact_id: str | None = None, *, status: int = 201, **more: Any) -> Any:
        """Book a slot. Returns the body of the response."""
        body = {"slot_id": slot_id, "contact_id": contact_id or self.contact(), **more}
        return self.post("appointments", body, status=status)

    def available(self, **query: Any) -> list[str]:
        """The ids of the slots that can be booked."""
        return [slot["id"] for slot in self.get("slots", **query)["data"]]

    def pass_time(self, passed: timedelta) -> None:
        """Move the test clock."""
        self.http.post("/v1/test_helpers/clock", json={"advance_s": passed.total_seconds()}).raise_for_status()

    def events(self, *types: str) -> list[Any]:
        """The events of these types, oldest first."""
        query: dict[str, list[str] | int] = {"type": list(types), "limit": 100}
        answer = self.http.get("/v1/events", params=query)
        assert answer.status_code == 200, answer.text
        events: list[Any] = answer.json()["data"]
        return events


async def counts_are_true(api: Api) -> bool:
    """Whether each slot's count is the number of its appointments that were not cancelled."""
    async with owner_connection(api) as owner:
        wrong: int = await owner.fetchval(
            "SELECT count(*) FROM spine.slots s WHERE booked <> (SELECT count(*) FROM spine.appointments a "
            "WHERE a.workspace_id = s.workspace_id AND a.slot_id = s.id AND a.status <> 'cancelled')"
        )
    return wrong == 0
