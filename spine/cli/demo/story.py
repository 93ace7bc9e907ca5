"""The story: a call becomes a lead and a visit, the lead a deal, the deal a project, a milestone an invoice; a form a ticket.

Each act uses the door that its people use: the voice agent and the back office call REST, an agent calls tools over MCP, and
customers fill in hosted pages. It needs a test workspace: its clock is moved, and the sandbox delivers its messages.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import httpx

from spine.cli.api import Api
from spine.cli.demo.agent import Agent
from spine.cli.demo.hosted_form import submit
from spine.cli.demo.scene import Scene
from spine.cli.errors import Failure

_WAIT_S: Final = 30.0
_REMINDER_S: Final = 26 * 3600
"""How far the clock is moved: the visit is two days ahead, and its first reminder a day before it."""

_SETTLED: Final = {"delivered", "read", "failed", "cancelled"}

Tell = Callable[[str, str, dict[str, Any]], None]
"""Prints one step: the door, what happened, and the ids that it made."""


class Story:
    """Plays the acts in order. Each one keeps what the next ones need."""

    def __init__(self, api: Api, agent: Agent, browser: httpx.Client, scene: Scene, tell: Tell) -> None:
        self._api = api
        self._agent = agent
        self._browser = browser
        self._scene = scene
        self._tell = tell

    def play(self) -> None:
        """Play all acts. Raises Failure where one does not end as it must."""
        call = self._take_call()
        deal = self._win_deal(call)
        self._deliver(deal)
        self._book_by_page()
        self._support()
        self._remind(call)

    def _take_call(self) -> dict[str, Any]:
        """A call comes in: its contact is matched, the lead, the call and the visit are written at once."""
        session = self._api.post("/crm/v1/call_sessions", {"phone": self._scene.phone, "channel": "voice"})
        self._tell(
            "REST",
            "a call comes in",
            {"session": session["id"], "contact": session["contact_id"], "match": session["match"]},
        )
        context = self._api.get(f"/crm/v1/call_sessions/{session['id']}/context")
        self._tell(
            "REST",
            "the voice agent reads who calls",
            {"name": context["contact"]["name"], "open leads": len(context["open_leads"])},
        )
        self._api.patch(f"/crm/v1/call_sessions/{session['id']}/fields", {"name": "Priya Raghavan", "rooms": 3})
        call: dict[str, Any] = self._api.post(
            f"/crm/v1/call_sessions/{session['id']}/finalize",
            {
                "lead": {"source": "phone"},
                "interests": [{"catalog_item_id": self._scene.item_id, "note": "three rooms"}],
                "appointment": {"slot_id": self._scene.slot_ids[0], "service": self._scene.service},
            },
        )
        self._tell(
            "REST", "lead, interest, call and visit in one transaction",
            {"lead": call["lead_id"], "call": call["call_id"], "appointment": call["appointment_id"]},
        )  # fmt: skip
        return call

    def _win_deal(self, call: dict[str, Any]) -> dict[str, Any]:
        """An agent moves the lead on, and wins the deal."""
        self._agent.change("crm_move_lead", id=call["lead_id"], to="qualified")
        deal = self._api.post(
            "/crm/v1/deals",
            {
                "lead_id": call["lead_id"], "contact_id": call["contact_id"], "name": "Site fit-out", "stage": "proposal",
                "value_minor": 120_000_00, "currency": "INR", "owner_id": self._scene.owner_id,
            },
        )  # fmt: skip
        won = self._agent.change("crm_win_deal", id=deal["id"])
        self._tell("MCP", "an agent qualifies the lead and wins the deal", {"deal": won["id"], "status": won["status"]})
        return won

    def _deliver(self, deal: dict[str, Any]) -> None:
        """The won deal becomes a project; its first milestone drafts an invoice."""
        project = self._agent.change(
            "works_scaffold_project", deal_id=deal["id"], name="Site fit-out", owner_id=self._scene.owner_id, template=self._scene.template,
        )  # fmt: skip
        board = self._api.get(f"/works/v1/projects/{project['id']}/milestones")["data"]
        tasks = self._api.first("/works/v1/tasks", 100, project_id=project["id"])["data"]
        self._tell(
            "MCP",
            "an agent scaffolds the project from the won deal",
            {"project": project["id"], "milestones": len(board), "tasks": len(tasks)},
        )
        first = min(board, key=lambda milestone: milestone["position"])
        for task in tasks:
            if task["milestone_id"] == first["id"]:
                self._api.post(f"/works/v1/tasks/{task['id']}/complete")
        reached = self._agent.change("works_reach_milestone", id=first["id"])
        invoice = self._until(
            lambda: self._api.first("/billing/v1/invoices", 10, project_id=project["id"])["data"],
            "no invoice was drafted",
        )[0]
        self._tell(
            "MCP",
            "the milestone is reached, and Billing drafts its invoice",
            {"milestone": reached["id"], "invoice": invoice["id"]},
        )

    def _book_by_page(self) -> None:
        """Another customer books a visit on the hosted page."""
        shown = submit(
            self._browser,
            f"{self._scene.page_url}?service={self._scene.service}",
            name="Dev Nair",
            phone="+910000000000",
            email="",
        )
        self._tell("page", f"a customer books at {self._scene.page_url}", {"shown": shown[:60]})

    def _support(self) -> None:
        """A customer asks for help on the hosted form; the ticket has an owner at once, and is resolved with a message."""
        shown = submit(
            self._browser, self._scene.form_url, name="Dev Nair", phone="+910000000000", email="",
            topic=f"parts_{self._scene.mark}", subject="Part delayed", message="The outdoor unit has not come.",
        )  # fmt: skip
        ticket = self._api.first("/tickets/v1/tickets", 1)["data"][0]
        self._tell(
            "page",
            f"a customer asks for help at {self._scene.form_url}",
            {"ticket": ticket["id"], "owner": ticket["owner_id"], "shown": shown[:40]},
        )
        self._agent.change("tickets_reply", id=ticket["id"], kind="comment", body="It arrives on Friday.")
        resolved = self._api.post(
            f"/tickets/v1/tickets/{ticket['id']}/resolve", {"resolution_note": "Delivered on Friday."}
        )
        self._tell(
            "REST",
            "the ticket is resolved, and the customer is told",
            {"ticket": resolved["id"], "status": resolved["status"]},
        )

    def _remind(self, call: dict[str, Any]) -> None:
        """A day passes: the reminder goes out, arrives, and the person replies."""
        self._until(self._all_settled, "messages were not delivered")
        self._api.post("/v1/test_helpers/clock", {"advance_s": _REMINDER_S})
        sent = self._until(
            lambda: self._events("appointment.reminder_sent", call["appointment_id"]), "no reminder was sent"
        )
        message_id = sent[0]["data"]["message_id"]
        self._until(lambda: self._events("message.replied", message_id), "nobody replied to the reminder")
        message = self._api.get(f"/notifications/v1/messages/{message_id}")
        self._tell(
            "clock",
            "a day passes: the reminder arrives, and the person replies",
            {"message": message_id, "channel": message["channel"]},
        )

    def _all_settled(self) -> list[Any]:
        """Whether every message has reached its end: the clock would move the ends of their waits."""
        messages = self._api.first("/notifications/v1/messages", 20)["data"]
        return messages if all(message["status"] in _SETTLED for message in messages) else []

    def _events(self, type: str, subject_id: str) -> list[dict[str, Any]]:
        found: Iterable[dict[str, Any]] = self._api.first("/v1/events", 1000, type=type)["data"]
        return [event for event in found if subject_id in (event["data"].get("id"), event["data"].get("message_id"))]

    def _until(self, read: Callable[[], list[Any]], error: str) -> list[Any]:
        until_s = time.monotonic() + _WAIT_S
        while not (found := read()):
            if time.monotonic() > until_s:
                raise Failure(f"{error} within {_WAIT_S:.0f} s: is a worker running? `spine doctor` tells")
            time.sleep(0.2)
        return found
