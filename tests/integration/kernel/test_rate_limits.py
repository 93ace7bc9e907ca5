"""The rate limit of a workspace, with Redis and without it."""

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.api import Account, Api, Organisation, client, serve, unique_key

EVENT = {"type": "order.paid", "data": {}}


@contextmanager
def limited(api: Api, account: Account, requests: int, redis_url: str | None = None) -> Iterator[httpx.Client]:
    """A client of an API that allows this many requests per workspace and minute."""
    settings = {"SPINE_RATE_LIMIT_REQUESTS": str(requests)}
    with (
        serve(api.database_url, redis_url or api.redis_url, **settings) as server,
        client(server.url, account.key) as http,
    ):
        yield http


def test_every_response_has_rate_limit_headers(http: httpx.Client) -> None:
    """Every kind of response has RateLimit and RateLimit-Policy, refusals included (conventions 2.10)."""
    answers = [
        http.get("/v1/users"),
        http.post("/v1/events", json=EVENT),
        http.post("/v1/events", json={}),
        http.get("/v1/users/usr_none"),
    ]
    assert [answer.status_code for answer in answers] == [200, 201, 422, 404]
    for answer in answers:
        assert answer.headers["ratelimit-policy"] == '"default";q=60000;w=60'
        assert answer.headers["ratelimit"].startswith('"default";r=')
        assert not any(name.startswith("x-ratelimit") for name in answer.headers)


def test_over_the_limit_is_429(api: Api, org: Organisation) -> None:
    """Over the limit a request is 429 with Retry-After and has no effect. Other workspaces are served."""
    with limited(api, org.test, 5) as http:
        answers = [http.post("/v1/events", json=EVENT) for _ in range(12)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 2 <= len(refused) <= 7  # a minute may end between two of them
        for answer in refused:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "rate_limited"
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert answer.headers.get_list("ratelimit") == [f'"default";r=0;t={answer.headers["retry-after"]}']
        with client(str(http.base_url), org.live.key) as elsewhere:
            assert elsewhere.get("/v1/events").status_code == 200
    with org.test.client() as http:
        stored = http.get("/v1/events", params={"limit": 100}).json()["data"]
    assert len(stored) == len(answers) - len(refused)


def test_a_refused_request_does_not_use_its_key(api: Api, org: Organisation) -> None:
    """429 is not stored: the same Idempotency-Key is executed once the limit allows it (X17)."""
    with limited(api, org.test, 1) as http:
        answers = [http.post("/v1/events", json=EVENT) for _ in range(3)]
    refused = next(answer for answer in answers if answer.status_code == 429)
    with org.test.client() as http:
        key = {"Idempotency-Key": refused.request.headers["idempotency-key"]}
        answer = http.post("/v1/events", json=EVENT, headers=key)
    assert answer.status_code == 201
    assert "idempotent-replayed" not in answer.headers


def test_replays_count(api: Api, org: Organisation) -> None:
    """A replay counts as a request like any other (conventions 2.10)."""
    key = {"Idempotency-Key": unique_key()}
    with limited(api, org.test, 3) as http:
        statuses = [http.post("/v1/events", json=EVENT, headers=key).status_code for _ in range(10)]
    assert set(statuses) == {201, 429}


@pytest.mark.parametrize("unreachable", ["redis://127.0.0.1:1/0", "unix:///nowhere/redis.sock"])
def test_requests_are_served_without_redis(unreachable: str, api: Api, org: Organisation) -> None:
    """Redis only carries wakeups and counts. Without it requests are served, and each process counts its own."""
    with limited(api, org.test, 8, unreachable) as http:
        statuses = [http.post("/v1/events", json=EVENT).status_code for _ in range(20)]
        assert statuses.count(201) >= 8
        assert statuses.count(429) >= 1
        ready = httpx.get(f"{http.base_url}/readyz", trust_env=False)
    assert ready.status_code == 200
    assert ready.json()["missing"][0].startswith("redis")


def test_requests_are_served_beside_a_redis_that_hangs(api: Api, org: Organisation) -> None:
    """A Redis that accepts connections and never answers costs a request in a second its wait, and refuses none."""
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen(1024)
        with limited(api, org.test, 40, f"redis://127.0.0.1:{hung.getsockname()[1]}/0") as http:
            statuses = [http.get("/v1/users").status_code for _ in range(40)]
            ready = httpx.get(f"{http.base_url}/readyz", trust_env=False)
            hung.setblocking(False)
            connections = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    hung.accept()[0].close()
                    connections += 1
    assert statuses == [200] * 40
    assert connections < 40
    assert ready.status_code == 200
    assert ready.json()["missing"][0].startswith("redis")
