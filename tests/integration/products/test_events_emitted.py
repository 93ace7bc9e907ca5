"""Every mutation tells of itself: the event is declared, and its body is what the webhooks section promises."""

import asyncio
from typing import Any

import asyncpg
import httpx
import jsonschema
import orjson
import pytest

from tests.api import Api, Organisation
from tests.contract.specification import BEHIND_THE_DOOR, SPINE, Operation
from tests.one_of_each import make_things

MUTATIONS = [operation for operation in BEHIND_THE_DOOR if operation.mutating]
FIRST = {
    "POST /v1/webhook_endpoints/{id}/enable": ("PATCH", "/v1/webhook_endpoints/{id}", {"status": "disabled"}),
    "POST /v1/replays/{id}/resume": ("POST", "/v1/replays/{id}/pause", {}),
}
"""What has to be done before an operation has anything to do."""


def bodies(api: Api, workspace_id: str) -> list[dict[str, Any]]:
    """The exact bodies that subscribers would get, in the order of their making."""

    async def fetch() -> list[dict[str, Any]]:
        owner = await asyncpg.connect(api.database_url)
        try:
            rows = await owner.fetch(
                "SELECT body FROM spine.events WHERE workspace_id = $1 AND body IS NOT NULL ORDER BY id", workspace_id
            )
        finally:
            await owner.close()
        return [orjson.loads(row["body"]) for row in rows]

    return asyncio.run(fetch())


def validate(body: dict[str, Any]) -> None:
    """Hold a captured body against the webhooks section."""
    schema = SPINE["webhooks"][body["type"]]["post"]["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(
        {**schema, "components": SPINE["components"]},
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    ).validate(body)


@pytest.mark.parametrize("operation", [one for one in MUTATIONS if one.path.startswith("/v1/")], ids=str)
def test_a_mutation_emits_what_it_declares(
    operation: Operation, http: httpx.Client, api: Api, org: Organisation
) -> None:
    """Call it: at least one event of a declared type, carrying the call's request id, with a body as documented (P-04)."""
    things = make_things(org.test, api.database_url)
    if str(operation) in FIRST:
        method, path, body = FIRST[str(operation)]
        assert http.request(method, things.path(path), json=body).status_code == 200
    answer = http.request(operation.method, things.path(operation.path), json=operation.body())
    assert answer.status_code in (200, 201), answer.text
    emitted = [
        body for body in bodies(api, org.test.workspace_id) if body["request_id"] == answer.headers["request-id"]
    ]
    assert emitted
    for body in emitted:
        assert body["type"] in operation.spec["x-events"] or "*" in operation.spec["x-events"]
        if body["type"] in SPINE["webhooks"]:
            validate(body)
        assert body["workspace_id"] == org.test.workspace_id
        assert body["env"] == "test"


def test_everything_emitted_is_declared(http: httpx.Client, api: Api, org: Organisation) -> None:
    """Whatever a workspace's life brings forth stands in the webhooks section, or is of the caller's own types."""
    make_things(org.test, api.database_url)
    emitted = bodies(api, org.test.workspace_id)
    assert len(emitted) >= 6
    for body in emitted:
        if body["type"] != "order.paid":
            validate(body)
