"""Check the settings: read each group as the processes read it, then judge values that are valid but unsafe."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from spine.cli.doctor.finding import Finding, fail, ok, warn
from spine.kernel.settings import (
    DatabaseSettings,
    EgressSettings,
    HttpSettings,
    VaultSettings,
    WakeupSettings,
    WorkSettings,
)
from spine.kernel.vault import Vault

S = TypeVar("S", bound=BaseSettings)

_LOOPBACK: Final = {"127.0.0.1", "::1", "localhost"}
_EXAMPLE_KEY: Final = bytes(32)
_REMEDIES: Final = {
    "DATABASE_URL": "set DATABASE_URL=postgresql://user@host/database; `make up` sets it by itself",
    "REDIS_URL": "set REDIS_URL=redis://host:6379/0; `make up` sets it by itself",
    "SPINE_ENCRYPTION_KEY": "set SPINE_ENCRYPTION_KEY to the output of: openssl rand -base64 32. Where one was in use, "
    "set that one: what it sealed opens with nothing else",
}


@dataclass
class Settings:
    """The groups of settings; None for a group that is invalid."""

    database: DatabaseSettings | None = None
    wakeups: WakeupSettings | None = None
    http: HttpSettings | None = None
    work: WorkSettings | None = None
    vault: Vault | None = None


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Read every group into `settings` and yield the findings."""
    failures: list[Finding] = []
    settings.database = _read(DatabaseSettings, failures)
    settings.wakeups = _read(WakeupSettings, failures)
    settings.http = _read(HttpSettings, failures)
    settings.work = _read(WorkSettings, failures)
    egress = _read(EgressSettings, failures)
    vault = _read(VaultSettings, failures)
    yield from failures
    if not failures:
        yield ok("settings", "all present and well-formed")
    if vault is not None:
        settings.vault, finding = encryption_key(vault.encryption_key.get_secret_value())
        yield finding
    yield from _unsafe_values(settings.http, egress)


def _read(group: Callable[[], S], failures: list[Finding]) -> S | None:
    try:
        return group()
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False):
            field = str(fault["loc"][0])
            name = field if field.isupper() else f"SPINE_{field.upper()}"
            failures.append(
                fail("settings", f"{name}: {fault['msg']}", _REMEDIES.get(name, f"see {name} in .env.example"))
            )
        return None


def encryption_key(text: str) -> tuple[Vault | None, Finding]:
    """Judge the encryption key. The finding never contains the key."""
    try:
        vault = Vault.from_text(text)
    except ValueError as error:
        return None, fail("encryption key", str(error), _REMEDIES["SPINE_ENCRYPTION_KEY"])
    keys = [base64.b64decode(part) for part in text.split(",") if part.strip()]
    if _EXAMPLE_KEY in keys:
        remedy = "put a key of your own first: openssl rand -base64 32; the old one behind it still opens"
        return vault, fail("encryption key", "this is the example's, which everybody knows", remedy)
    return vault, ok("encryption key", f"{len(keys)} of 32 bytes" if len(keys) > 1 else "32 bytes")


def _unsafe_values(http: HttpSettings | None, egress: EgressSettings | None) -> Iterator[Finding]:
    if http is not None and http.signup == "open" and http.http_host not in _LOOPBACK:
        remedy = "SPINE_SIGNUP=closed, and `spine keys create --org` for those you know"
        yield warn("signup", f"open to everybody who reaches {http.http_host}", remedy)
    unlimited = [str(network) for network in (egress.egress_allow if egress else ()) if network.prefixlen == 0]
    if unlimited:
        remedy = "list only the ranges that receivers stand in: with this one, callers reach into your network"
        yield fail("egress", f"SPINE_EGRESS_ALLOW opens {', '.join(unlimited)}", remedy)
