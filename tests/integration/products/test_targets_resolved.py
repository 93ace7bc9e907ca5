"""URLs and hosts that a caller names are resolved when they are saved: with a deadline, and apart from other workspaces."""

import asyncio
from typing import Any

import httpx

from tests.api import serve
from tests.name_server import SILENT, name_server

SMTP: dict[str, Any] = {"channel": "email", "kind": "smtp", "config": {"sender": "a@example.com", "tls": "none"}}
HTTP: dict[str, Any] = {"channel": "sms", "kind": "http", "config": {"id": "$.id"}}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def _refused(answer: httpx.Response) -> tuple[int, str, str]:
    problem = answer.json()
    return answer.status_code, problem["code"], problem["param"]


async def test_a_name_server_that_is_silent_delays_until_the_deadline_only(
    module_database: str, module_redis_url: str
) -> None:
    """Past the deadline the name counts as one that does not resolve yet: https may be saved, plain http is refused."""
    async with name_server(dead=SILENT, own=["127.0.0.1"]) as names:
        settings = {"SPINE_DNS_SERVERS": f"127.0.0.1:{names.port}", "SPINE_DNS_TIMEOUT_S": "0.3"}
        with serve(module_database, module_redis_url, **settings) as api:
            async with api.sign_up().live.async_client() as http:
                endpoint = {"url": "https://dead.example/", "events": ["order.paid"]}
                made = await http.post("/v1/webhook_endpoints", json=endpoint)
                assert made.status_code == 201, made.text
                assert names.asked["dead.example"] > 0
                path, plain = f"/v1/webhook_endpoints/{made.json()['id']}", {"url": "http://dead.example/"}
                for refused in (
                    await http.post("/v1/webhook_endpoints", json=endpoint | plain),
                    await http.patch(path, json=plain),
                ):
                    assert _refused(refused) == (422, "egress_blocked", "url")
                assert (await http.patch(path, json={"url": "http://own.example/"})).status_code == 200
                mail = SMTP | {"credentials": {"host": "dead.example", "port": 25}}
                assert (await http.post("/notifications/v1/provider_accounts", json=mail)).status_code == 201
                text = HTTP | {"credentials": {"url": "http://dead.example/", "secret": SECRET}}
                refused = await http.post("/notifications/v1/provider_accounts", json=text)
                assert _refused(refused) == (422, "egress_blocked", "credentials.url")


async def test_dead_names_of_one_workspace_hold_up_no_other(module_database: str, module_redis_url: str) -> None:
    """While 40 requests wait for silent name servers, an endpoint of another workspace is created."""
    dead = {f"dead-{n}": SILENT for n in range(40)}
    async with name_server(healthy=["127.0.0.1"], **dead) as names:
        settings = {"SPINE_DNS_SERVERS": f"127.0.0.1:{names.port}", "SPINE_DNS_TIMEOUT_S": "60"}
        with serve(module_database, module_redis_url, **settings) as api:
            hurting, other = api.sign_up(), api.sign_up()
            async with hurting.test.async_client() as slow, other.test.async_client() as http:
                waiting = [
                    asyncio.create_task(
                        slow.post("/v1/webhook_endpoints", json={"url": f"https://{name}.example/", "events": ["a.b"]})
                    )
                    for name in dead
                ]
                await names.was_asked.wait()
                made = await http.post(
                    "/v1/webhook_endpoints", json={"url": "https://healthy.example/", "events": ["a.b"]}
                )
                assert made.status_code == 201, made.text
                assert not any(task.done() for task in waiting)
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
