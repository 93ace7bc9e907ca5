"""The health and metrics routes."""

import httpx

from tests.api import Api


def test_a_healthy_process_is_live_and_ready(api: Api) -> None:
    """/livez and /readyz return 200 without a key; nothing is reported missing while database and Redis are reachable."""
    assert httpx.get(f"{api.url}/livez").status_code == 200
    ready = httpx.get(f"{api.url}/readyz")
    assert (ready.status_code, ready.json()["missing"]) == (200, [])


def test_metrics_are_for_this_machine_only(api: Api) -> None:
    """A caller on this machine may read /metrics; a request through any proxy is refused."""
    assert "spine_http_requests_total" in httpx.get(f"{api.url}/metrics").text
    for header in ("X-Forwarded-For", "Forwarded"):
        refused = httpx.get(f"{api.url}/metrics", headers={header: "for=203.0.113.9"})
        assert (refused.status_code, refused.json()["code"]) == (403, "operator_only")
