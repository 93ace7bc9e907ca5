"""The limit of a workspace's requests, and what becomes of it while Redis is away."""

import httpx
import pytest

from tests.api import Api, Organisation, client, serve, unique_key

EVENT = {"type": "order.paid", "data": {}}


def test_every_answer_tells_where_the_caller_stands(http: httpx.Client) -> None:
    """RateLimit and RateLimit-Policy stand on answers of every kind, refusals included (conventions 2.10)."""
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
    """Beyond the limit: 429 as a problem, with Retry-After; nothing is done, and other workspaces go on."""
    with serve(api.database_url, api.redis_url, SPINE_RATE_LIMIT_REQUESTS="5") as tight:
        with client(tight.url, org.test.key) as http:
            answers = [http.post("/v1/events", json=EVENT) for _ in range(12)]
            refused = [answer for answer in answers if answer.status_code == 429]
            assert 2 <= len(refused) <= 7  # a minute may end between two of them
            for answer in refused:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["code"] == "rate_limited"
                assert 1 <= int(answer.headers["retry-after"]) <= 60
                assert answer.headers.get_list("ratelimit") == [f'"default";r=0;t={answer.headers["retry-after"]}']
        with client(tight.url, org.live.key) as elsewhere:
            assert elsewhere.get("/v1/events").status_code == 200
    with org.test.client() as http:
        kept = http.get("/v1/events", params={"limit": 100}).json()["data"]
    assert len(kept) == len(answers) - len(refused)


def test_a_refused_key_is_free(api: Api, org: Organisation) -> None:
    """429 is not stored: the same Idempotency-Key does its work when there is room again (X17)."""
    key = {"Idempotency-Key": unique_key()}
    with (
        serve(api.database_url, api.redis_url, SPINE_RATE_LIMIT_REQUESTS="1") as tight,
        client(tight.url, org.test.key) as http,
    ):
        statuses = [http.post("/v1/events", json=EVENT, headers=key).status_code for _ in range(3)]
    assert 429 in statuses
    with org.test.client() as http:
        assert http.post("/v1/events", json=EVENT, headers=key).status_code == 201


def test_replays_count(api: Api, org: Organisation) -> None:
    """Asking for a stored answer is a request like any other (conventions 2.10)."""
    key = {"Idempotency-Key": unique_key()}
    with (
        serve(api.database_url, api.redis_url, SPINE_RATE_LIMIT_REQUESTS="3") as tight,
        client(tight.url, org.test.key) as http,
    ):
        statuses = [http.post("/v1/events", json=EVENT, headers=key).status_code for _ in range(10)]
    assert set(statuses) == {201, 429}


@pytest.mark.parametrize("away", ["redis://127.0.0.1:1/0", "unix:///nowhere/redis.sock"])
def test_without_redis_all_is_served(away: str, api: Api, org: Organisation) -> None:
    """Redis is a bell: while it is away requests are answered, counted by each process for itself, and events accepted."""
    with serve(api.database_url, away, SPINE_RATE_LIMIT_REQUESTS="8") as alone, client(alone.url, org.test.key) as http:
        statuses = [http.post("/v1/events", json=EVENT).status_code for _ in range(20)]
        assert statuses.count(201) >= 8
        assert statuses.count(429) >= 1
        ready = httpx.get(f"{alone.url}/readyz", trust_env=False)
    assert ready.status_code == 200
    assert ready.json()["missing"][0].startswith("redis")
