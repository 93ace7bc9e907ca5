"""What one more thin resource costs, shown with the routing rules of `docs/adding_a_resource`, in a copy of the project."""

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
CATALOGUE_LINES: Final = (
    ("from products.notifications import inbound\n", "from products.tickets import routing_rules\n"),
    ("    inbound.router,\n", "    routing_rules.router,\n"),
)
"""What is added to products/catalogue.py, each behind a line that is there."""
MAX_LINES: Final = 130


def _copy_with_recipe(directory: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "products/tickets").mkdir()
    (directory / "products/tickets/__init__.py").write_text('"""Tickets."""\n')
    shutil.copy(RECIPE / "routing_rules.py", directory / "products/tickets")
    versions = directory / "spine/kernel/migrations/versions"
    newest = max(path.name.partition("_")[0] for path in versions.glob("[0-9]*.py"))
    revision = f"{int(newest) + 1:04}"
    migration = (RECIPE / "migration.py").read_text().replace("NEWEST", newest).replace("NEXT", revision)
    (versions / f"{revision}_routing_rules.py").write_text(migration)
    catalogue = directory / "products/catalogue.py"
    text = catalogue.read_text()
    for before, added in CATALOGUE_LINES:
        assert text.count(before) == 1
        text = text.replace(before, before + added)
    catalogue.write_text(text)


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
    assert len((RECIPE / "routing_rules.py").read_text().splitlines()) <= MAX_LINES


def test_its_verbs_are_served(url: str) -> None:
    """Create, read, list and change work as for every resource: prefix, Location, replay, version, errors by field."""
    with _sign_up(url) as http:
        owner_id = http.post("/v1/users", json={"name": "Ann", "email": "ann@example.com"}).json()["id"]
        body = {"topic": "billing", "owner_id": owner_id}
        first = http.post("/tickets/v1/routing_rules", json=body, headers={"Idempotency-Key": "once"})
        again = http.post("/tickets/v1/routing_rules", json=body, headers={"Idempotency-Key": "once"})
        rule = first.json()
        assert first.status_code == 201
        assert rule["id"].startswith("rrl_")
        assert first.headers["location"] == f"/tickets/v1/routing_rules/{rule['id']}"
        assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
        second = http.post("/tickets/v1/routing_rules", json=body)
        assert (second.status_code, second.json()["code"], second.json()["param"]) == (
            409, "routing_rule_exists", "topic",
        )  # fmt: skip
        unknown = http.post("/tickets/v1/routing_rules", json={"owner_id": "usr_01ARZ3NDEKTSV4RRFFQ69G5FAV"})
        assert (unknown.status_code, unknown.json()["code"], unknown.json()["param"]) == (
            422, "reference_not_found", "owner_id",
        )  # fmt: skip
        path = first.headers["location"]
        changed = http.patch(path, json={"topic": None}, headers={"If-Match": '"1"'}).json()
        assert (changed["topic"], changed["version"]) == (None, 2)
        assert http.get(path).json() == changed
        assert http.get("/tickets/v1/routing_rules").json()["data"] == [changed]


def test_other_workspaces_do_not_see_it(url: str) -> None:
    """The database keeps its rows in their workspace: another workspace's key gets 404, as for an unknown id (P-14, P-15)."""
    with _sign_up(url) as http, _sign_up(url) as other:
        owner_id = http.post("/v1/users", json={"name": "Ann", "email": "ann@example.com"}).json()["id"]
        path = http.post("/tickets/v1/routing_rules", json={"owner_id": owner_id}).headers["location"]
        assert http.get(path).status_code == 200
        assert other.get(path).status_code == other.patch(path, json={"topic": "x"}).status_code == 404
        assert other.get("/tickets/v1/routing_rules").json()["data"] == []


def test_its_events_and_reference_follow(url: str) -> None:
    """Its events are emitted and listed, and its product has an OpenAPI document with its paths and webhooks."""
    with _sign_up(url) as http:
        owner_id = http.post("/v1/users", json={"name": "Ann", "email": "ann@example.com"}).json()["id"]
        path = http.post("/tickets/v1/routing_rules", json={"owner_id": owner_id}).headers["location"]
        http.patch(path, json={"topic": "returns"}).raise_for_status()
        events = http.get("/v1/events", params={"type": "routing_rule.*"}).json()["data"]
        assert [(event["type"], event["data"]["version"]) for event in events] == [
            ("routing_rule.created", 1), ("routing_rule.updated", 2),
        ]  # fmt: skip
        types = {entry["name"] for entry in http.get("/v1/events/types").json()["data"]}
        assert {"routing_rule.created", "routing_rule.updated"} <= types
        document = http.get("/tickets/v1/openapi.json").json()
    assert set(document["paths"]) == {"/tickets/v1/routing_rules", "/tickets/v1/routing_rules/{id}"}
    assert set(document["webhooks"]) == {"routing_rule.created", "routing_rule.updated"}
