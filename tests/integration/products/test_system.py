"""Health and metrics, beside the products."""

import httpx

from tests.api import Api


def test_a_well_process_is_alive_ready_and_misses_nothing(api: Api) -> None:
    """/livez and /readyz answer without a key; nothing is named as missing while database and Redis are there."""
    assert httpx.get(f"{api.url}/livez").status_code == 200
    ready = httpx.get(f"{api.url}/readyz")
    assert (ready.status_code, ready.json()["missing"]) == (200, [])


def test_metrics_are_for_this_machine_alone(api: Api) -> None:
    """A caller on this machine reads /metrics; one that comes through a proxy is refused, whoever the proxy is."""
    assert "spine_http_requests_total" in httpx.get(f"{api.url}/metrics").text
    for header in ("X-Forwarded-For", "Forwarded"):
        refused = httpx.get(f"{api.url}/metrics", headers={header: "for=203.0.113.9"})
        assert (refused.status_code, refused.json()["code"]) == (403, "operator_only")
