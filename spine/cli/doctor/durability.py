"""Check that Postgres keeps committed data after a power failure. Without that, accepted events can be lost."""

from collections.abc import AsyncIterator
from typing import Any, Final

from spine.cli.doctor.finding import Finding, fail, ok

_SETTINGS: Final = {
    "fsync": "a power cut may destroy the whole database",
    "full_page_writes": "a power cut may tear pages of the database",
    "synchronous_commit": "a crash loses events that were answered with 201",
}


async def check_durability(connection: Any) -> AsyncIterator[Finding]:
    """Yield the findings about the three settings, with the values of our sessions."""
    values = {name: await connection.fetchval(f"SHOW {name}") for name in _SETTINGS}
    failures = [finding for finding in (judge(*setting) for setting in values.items()) if finding.level != "ok"]
    for failure in failures:
        yield failure
    if not failures:
        yield ok("durability", ", ".join(f"{name} {value}" for name, value in values.items()))


def judge(name: str, value: str) -> Finding:
    """Judge the value of one setting."""
    if value == "off":
        return fail(
            "durability", f"{name} is off: {_SETTINGS[name]}", f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();"
        )
    return ok("durability", f"{name} {value}")
