"""Check that message providers can report: real ones call the API under SPINE_PUBLIC_URL."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from spine.cli.doctor.finding import Finding, ok, warn
from spine.notifications.provider_kinds import PROVIDER_KINDS

_IN_USE: Final = """
    SELECT DISTINCT kind FROM spine.provider_accounts WHERE env = 'live' AND kind = ANY ($1::text[]) ORDER BY kind
"""


async def check_callbacks(connection: Any, public_url: str | None) -> AsyncIterator[Finding]:
    """Yield the finding about the URL that providers call."""
    reporting = sorted(name for name, kind in PROVIDER_KINDS.items() if kind.receipts)
    async with connection.transaction(readonly=True):
        await connection.execute("SET LOCAL ROLE spine_worker")
        kinds = [row["kind"] for row in await connection.fetch(_IN_USE, reporting)]
    yield callbacks(kinds, public_url)


def callbacks(kinds: Sequence[str], public_url: str | None) -> Finding:
    """Judge the URL that the providers of live accounts are given."""
    if not kinds:
        return ok("callbacks", "no live account whose provider reports")
    observed = f"{', '.join(kinds)} report to {public_url or 'the address that the API listens on'}"
    if public_url is None or not public_url.startswith("https://"):
        remedy = "set SPINE_PUBLIC_URL to the https URL under which the internet reaches this API, for API and workers"
        return warn("callbacks", observed, remedy)
    return ok("callbacks", observed)
