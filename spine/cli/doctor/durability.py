"""Whether Postgres keeps what it was told when the power goes: without that, accepted is not kept."""

from collections.abc import AsyncIterator
from typing import Any, Final

from spine.cli.doctor.finding import Finding, fail, ok

_SETTINGS: Final = {
    "fsync": "a power cut may destroy the whole database",
    "full_page_writes": "a power cut may tear pages of the database",
    "synchronous_commit": "a crash loses events that were answered with 201",
}


async def durability(connection: Any) -> AsyncIterator[Finding]:
    """The three settings that decide it, as our sessions get them."""
    values = {name: await connection.fetchval(f"SHOW {name}") for name in _SETTINGS}
    finding = [judge(name, value) for name, value in values.items()]
    bad = [each for each in finding if each.level != "ok"]
    for each in bad:
        yield each
    if not bad:
        yield ok("durability", ", ".join(f"{name} {value}" for name, value in values.items()))


def judge(name: str, value: str) -> Finding:
    """One of the three."""
    if value == "off":
        return fail(
            "durability", f"{name} is off: {_SETTINGS[name]}", f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();"
        )
    return ok("durability", f"{name} {value}")
