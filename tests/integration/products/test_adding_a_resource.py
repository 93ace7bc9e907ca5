"""What one more thin resource costs, shown with the saved replies of `docs/adding_a_resource`, in a copy of the project."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.api import client
from tests.conftest import empty_database
from tests.delivery_engine import KEY
from tests.e2e.installation import free_port

ROOT: Final = Path(__file__).parent.parent.parent.parent
RECIPE: Final = ROOT / "docs/adding_a_resource"
PACKAGES: Final = ("policies", "products", "providers", "spine", "workers")
ADDED_LINES: Final = (
    ("spine/kernel/ids.py", '    "form": "frm",\n', '    "saved_reply": "srp",\n'),
    (
        "products/catalogue.py",
        "from products.notifications import account_tests, inbound\n",
        "from products.tickets import saved_replies\n",
    ),
    ("products/catalogue.py", "    inbound.router,\n", "    saved_replies.router,\n"),
)
"""What is added to modules that are there, each behind a line of them."""
MAX_LINES: Final = 130


def _copy_with_recipe(directory: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(RECIPE / "saved_replies.py", directory / "products/tickets")
    versions = directory / "spine/kernel/migrations/versions"
    newest = max(path.name.partition("_")[0] for path in versions.glob("[0-9]*.py"))
    revision = f"{int(newest) + 1:04}"
    migration = (RECIPE / "migration.py").read_text().replace("NEWEST", newest).replace("NEXT", revision)
    (versions / f"{revision}_saved_replies.py").write_text(migration)
    for module, before, added in ADDED_LINES:
        text = (directory / module).read_text()
        assert text.count(before) == 1
        (directory / module).write_text(text.replace(before, before + added))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, redis_server: str) -> Iterator[str]:
    """The address of the copy's API, over a database that the copy's migrations made."""
    directory = tmp_path_factory.mktemp("copy")
    _copy_with_recipe(directory)
    with empty_database(postgres_url) as database_url:
        port = free_port()
        environment = os.environ | {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_server,
            "SPINE_ENCRYPTION_KEY": KEY,
            "SPINE_SIGNUP": "open",
            "SPINE_SIGNUP_PER_HOUR": "100000",
            "SPINE_HTTP_PORT": str(port),
        }
        subprocess.run([sys.executable, "-m", "spine.migrations"], cwd=directory, env=environment, check=True)
        process = subprocess.Popen([sys.executable, "-m", "products.app"], cwd=directory, env=environment)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_live(address, process)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_until_live(address: str, process: "subprocess.Popen[bytes]") -> None:
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s and process.poll() is None:
        try:
            httpx.get(f"{address}/livez", trust_env=False).raise_for_status()
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the API of the copy did not start")


def _sign_up(url: str) -> httpx.Client:
    with client(url, None) as anybody:
        body = anybody.post("/v1/signup", json={"name": "Acme", "email": "dev@acme.example"}).raise_for_status().json()
    return client(url, body["test"]["api_key"])


def test_a_resource_is_one_short_module() -> None:
    """A thin resource is one module of at most 130 lines beside its migration."""
    assert len((RECIPE / "saved_replies.py").read_text().splitlines()) <= MAX_LINES


def _body(http: httpx.Client, **fields: str) -> dict[str, str]:
    """Return the body of a saved reply of a new user."""
    author_id = http.post("/v1/users", json={"name": "Ann", "email": "ann@example.com"}).json()["id"]
    return {"title": "Thanks", "body": "Thank you for writing.", "author_id": author_id, **fields}


def test_its_verbs_are_served(url: str) -> None:
    """Create, read, list and change work as for every resource: prefix, Location, replay, version, errors by field."""
    with _sign_up(url) as http:
        body = _body(http)
        first = http.post("/tickets/v1/saved_replies", json=body, headers={"Idempotency-Key": "once"})
        again = http.post("/tickets/v1/saved_replies", json=body, headers={"Idempotency-Key": "once"})
        reply = first.json()
        assert first.status_code == 201
        assert reply["id"].startswith("srp_")
        assert first.headers["location"] == f"/tickets/v1/saved_replies/{reply['id']}"
        assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
        second = http.post("/tickets/v1/saved_replies", json=body)
        assert (second.status_code, second.json()["code"], second.json()["param"]) == (
            409, "saved_reply_exists", "title",
        )  # fmt: skip
        unknown = http.post(
            "/tickets/v1/saved_replies", json={**body, "title": "x", "author_id": "usr_01ARZ3NDEKTSV4RRFFQ69G5FAV"}
        )
        assert (unknown.status_code, unknown.json()["code"], unknown.json()["param"]) == (
            422, "reference_not_found", "author_id",
        )  # fmt: skip
        path = first.headers["location"]
        changed = http.patch(path, json={"title": "Many thanks"}, headers={"If-Match": '"1"'}).json()
        assert (changed["title"], changed["version"]) == ("Many thanks", 2)
        assert http.get(path).json() == changed
        assert http.get("/tickets/v1/saved_replies").json()["data"] == [changed]


def test_other_workspaces_do_not_see_it(url: str) -> None:
    """The database keeps its rows in their workspace: another workspace's key gets 404, as for an unknown id (P-14, P-15)."""
    with _sign_up(url) as http, _sign_up(url) as other:
        path = http.post("/tickets/v1/saved_replies", json=_body(http)).headers["location"]
        assert http.get(path).status_code == 200
        assert other.get(path).status_code == other.patch(path, json={"title": "x"}).status_code == 404
        assert other.get("/tickets/v1/saved_replies").json()["data"] == []


def test_its_events_and_reference_follow(url: str) -> None:
    """Its events are emitted and listed, and the document of its product has its paths and webhooks."""
    with _sign_up(url) as http:
        path = http.post("/tickets/v1/saved_replies", json=_body(http)).headers["location"]
        http.patch(path, json={"body": "Thanks a lot."}).raise_for_status()
        events = http.get("/v1/events", params={"type": "saved_reply.*"}).json()["data"]
        assert [(event["type"], event["data"]["version"]) for event in events] == [
            ("saved_reply.created", 1), ("saved_reply.updated", 2),
        ]  # fmt: skip
        types = {entry["name"] for entry in http.get("/v1/events/types").json()["data"]}
        assert {"saved_reply.created", "saved_reply.updated"} <= types
        document = http.get("/tickets/v1/openapi.json").json()
    assert {"/tickets/v1/saved_replies", "/tickets/v1/saved_replies/{id}"} <= set(document["paths"])
    assert {"saved_reply.created", "saved_reply.updated"} <= set(document["webhooks"])
