"""Check the API over HTTP: it responds, it is ready, and no other process holds its port."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from spine.cli.doctor.finding import Finding, fail, ok, warn
from spine.supervisor.ports import port_owner


async def check_api(url: str) -> AsyncIterator[Finding]:
    """Call /readyz and yield the finding."""
    async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
        try:
            response = await http.get(f"{url}/readyz")
        except httpx.HTTPError as error:
            yield unreachable(url, str(error) or type(error).__name__, port_owner(urlsplit(url).port or 80))
            return
    try:
        content: Any = response.json()
    except ValueError:
        content = None
    yield ready(url, response.status_code, content)


def unreachable(url: str, reason: str, port_holder: str | None) -> Finding:
    """Return the failure for an API that does not respond, with the process that holds the port."""
    if port_holder:
        remedy = "end that process, or give Spine another port: SPINE_HTTP_PORT"
        return fail("api", f"{url} is held by {port_holder}, which does not answer: {reason}", remedy)
    remedy = "start it: `make up`, or python -m products.app; another address is given by --url or SPINE_URL"
    return fail("api", f"nothing answers at {url}: {reason}", remedy)


def ready(url: str, status_code: int, content: Any) -> Finding:
    """Judge the response of /readyz."""
    if not isinstance(content, dict) or "missing" not in content:
        remedy = "give Spine another port (SPINE_HTTP_PORT), or the right address: --url, SPINE_URL"
        return fail("api", f"what answers at {url} is no Spine", remedy)
    missing = "; ".join(content["missing"])
    if status_code != httpx.codes.OK:
        return fail("api", f"{url} is not ready: {missing}", "mend what is missing; it needs no restart")
    return (
        warn("api", f"{url} serves without {missing}", "mend what is missing")
        if missing
        else ok("api", f"{url} is ready")
    )
