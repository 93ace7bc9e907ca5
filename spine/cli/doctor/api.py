"""The API from outside: does it answer, is it ready, and who else sits on its port."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from spine.cli.doctor.finding import Finding, fail, ok, warn
from spine.supervisor.ports import port_owner


async def reach(url: str) -> AsyncIterator[Finding]:
    """Ask /readyz."""
    async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
        try:
            answer = await http.get(f"{url}/readyz")
        except httpx.HTTPError as error:
            yield absent(url, str(error) or type(error).__name__, port_owner(urlsplit(url).port or 80))
            return
    try:
        content: Any = answer.json()
    except ValueError:
        content = None
    yield ready(url, answer.status_code, content)


def absent(url: str, why: str, holding: str | None) -> Finding:
    """Nothing answers; somebody else may sit there."""
    if holding:
        mend = "end that process, or give Spine another port: SPINE_HTTP_PORT"
        return fail("api", f"{url} is held by {holding}, which does not answer: {why}", mend)
    mend = "start it: `make up`, or python -m products.app; another address is given by --url or SPINE_URL"
    return fail("api", f"nothing answers at {url}: {why}", mend)


def ready(url: str, status_code: int, content: Any) -> Finding:
    """What /readyz said."""
    if not isinstance(content, dict) or "missing" not in content:
        mend = "give Spine another port (SPINE_HTTP_PORT), or the right address: --url, SPINE_URL"
        return fail("api", f"what answers at {url} is no Spine", mend)
    missing = "; ".join(content["missing"])
    if status_code != httpx.codes.OK:
        return fail("api", f"{url} is not ready: {missing}", "mend what is missing; it needs no restart")
    return (
        warn("api", f"{url} serves without {missing}", "mend what is missing")
        if missing
        else ok("api", f"{url} is ready")
    )
