"""Visitors without a browser: they read a page's form as a browser does, and send it."""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import httpx

from tests.api import TLS


class _PostForm(HTMLParser):
    """Reads the page's first form that is posted: its fields as they are sent untouched, and what may be chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.choices: dict[str, list[str]] = {}
        self.action = ""
        self._inside = False
        self._text_field: str | None = None
        self._select: str | None = None
        self._option: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and given.get("method") == "post" and not self.action:
            self.action, self._inside = given["action"], True
        if not self._inside:
            return
        name = given.get("name", "")
        if tag == "input" and given.get("type") == "radio":
            self.choices.setdefault(name, []).append(given["value"])
            if "checked" in given:
                self.fields[name] = given["value"]
        elif tag == "input":
            self.fields[name] = given.get("value", "")
        elif tag == "textarea":
            self._text_field, self.fields[name] = name, ""
        elif tag == "select":
            self._select, self.fields[name] = name, ""
        elif tag == "option" and self._select:
            self._option = given.get("value")
            self.choices.setdefault(self._select, [])
            if "selected" in given:
                self._option = "\0"

    def handle_data(self, data: str) -> None:
        if self._text_field:
            self.fields[self._text_field] += data
        elif self._select and data.strip() and self._option != "":
            self.choices[self._select].append(data.strip())
            if self._option == "\0":
                self.fields[self._select] = data.strip()
            self._option = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._text_field:
            self.fields[self._text_field] = self.fields[self._text_field].removeprefix("\n")
        if tag == "form":
            self._inside = False
        self._text_field = None if tag == "textarea" else self._text_field
        self._select = None if tag == "select" else self._select


@dataclass(slots=True)
class RenderedForm:
    """A form as it was rendered: where it goes, its fields, and what each of them may be."""

    action: str
    fields: dict[str, str]
    choices: dict[str, list[str]] = field(default_factory=dict)

    def filled(self, **values: str) -> dict[str, str]:
        """Return the fields with these values typed in."""
        return self.fields | values


def read_form(answer: httpx.Response) -> RenderedForm:
    """Return the form on a page."""
    parser = _PostForm()
    parser.feed(answer.text)
    return RenderedForm(parser.action, parser.fields, parser.choices)


def visible_text(answer: httpx.Response) -> str:
    """Return what a page says, without markup."""
    body = re.sub(r"<(style|script|option)\b.*?</\1>", " ", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def visitor(url: str) -> httpx.Client:
    """Return a client that is a visitor: without a key, and it follows no redirects by itself."""
    return httpx.Client(base_url=url, timeout=30, trust_env=False, verify=TLS)


def create(http: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    """Create something over the API."""
    answer = http.post(path, json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def new_form(http: httpx.Client, slug: str, **values: Any) -> dict[str, Any]:
    """Create a form with its default route to Ann and a route of the topic `billing` to Bob."""
    for topic, name in ((None, "Ann Default"), ("billing", "Bob Billing")):
        owner = create(http, "/v1/users", name=name, email=f"{name[:3].lower()}-{slug}@example.com")
        create(http, "/tickets/v1/routing_rules", topic=topic, owner_id=owner["id"])
    body: Mapping[str, Any] = {
        "title": "How can we help?",
        "topics": ["billing", "delivery"],
        "brand": {"name": "Acme Repairs", "color": "#1F6F5C"},
        "allowed_origins": ["https://shop.example"],
    }
    return create(http, "/tickets/v1/forms", slug=slug, **{**body, **values})


@dataclass(frozen=True, slots=True)
class Salon:
    """A booking page with one service, one resource and free slots."""

    page: dict[str, Any]
    slot_ids: list[str]
    starts: list[datetime]


def new_salon(
    http: httpx.Client, slug: str, *, slots: int = 3, time_zone: str = "Asia/Kolkata", **values: Any
) -> Salon:
    """Create a booking page for `ac_service`, and free slots of an hour from tomorrow noon UTC on."""
    resource = create(http, "/calendar/v1/resources", name="Meera", time_zone=time_zone)
    create(http, "/calendar/v1/services", slug="ac_service", name="AC service", duration_min=45)
    first = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) + timedelta(days=1)
    starts = [first + timedelta(hours=2 * number) for number in range(slots)]
    made = create(
        http,
        "/calendar/v1/slots",
        slots=[
            {
                "resource_id": resource["id"],
                "service": "ac_service",
                "starts_at": start.isoformat(),
                "ends_at": (start + timedelta(hours=1)).isoformat(),
            }
            for start in starts
        ],
    )
    brand = {"name": "Cool Air", "color": "#FFCC00"}
    page = create(
        http, "/calendar/v1/booking_pages", slug=slug, **{"brand": brand, "services": ["ac_service"], **values}
    )
    return Salon(page, [slot["id"] for slot in made["data"]], starts)
