"""The health and metrics routes."""

import httpx

from tests.api import Api, serve


def test_a_healthy_process_is_live_and_ready(api: Api) -> None:
    """/livez and /readyz return 200 without a key; nothing is reported missing while database and Redis are reachable."""
    assert httpx.get(f"{api.url}/livez").status_code == 200
    ready = httpx.get(f"{api.url}/readyz")
    assert (ready.status_code, ready.json()["missing"]) == (200, [])


FORWARDED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")


def test_metrics_without_a_token_are_for_this_machine(api: Api) -> None:
    """Without a token a caller on this machine may read /metrics; a request with any proxy's header is refused."""
    assert "spine_http_requests_total" in httpx.get(f"{api.url}/metrics").text
    for header in FORWARDED:
        refused = httpx.get(f"{api.url}/metrics", headers={header: "127.0.0.1"})
        assert (refused.status_code, refused.json()["code"]) == (403, "operator_only")


def test_metrics_take_the_token_whatever_the_headers_say(database: str, redis_url: str) -> None:
    """Where a token is set everybody needs it: a proxy on this machine that names nobody looks like a caller on it."""
    with serve(database, redis_url, SPINE_OPERATOR_TOKEN="a-long-random-word") as running:
        url = f"{running.url}/metrics"
        for headers in ({}, {"Host": "localhost"}, {"X-Forwarded-For": "127.0.0.1"}, {"Authorization": "Bearer a"}):
            assert httpx.get(url, headers=headers).status_code == 403
        assert httpx.get(url, headers={"Authorization": "Bearer a-long-random-word"}).status_code == 200


def test_metrics_behind_a_proxy_take_a_token(database: str, redis_url: str) -> None:
    """Where a proxy stands in front no caller is on this machine."""
    with serve(database, redis_url, SPINE_TRUSTED_PROXIES="127.0.0.1/32") as running:
        assert httpx.get(f"{running.url}/metrics").status_code == 403
