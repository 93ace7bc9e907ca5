"""The providers that are spoken: every adapter, in one place and in plain sight."""

import asyncpg

from providers.http import HttpProvider
from providers.protocol import Provider
from providers.sandbox import Sandbox
from providers.smtp import SmtpProvider
from spine.egress import Egress


def providers(pool: "asyncpg.Pool[asyncpg.Record]", egress: Egress) -> dict[str, Provider]:
    """Every adapter by its kind; `pool` is what the sandbox keeps its memory in."""
    made: tuple[Provider, ...] = (Sandbox(pool), SmtpProvider(egress), HttpProvider(egress))
    return {provider.kind: provider for provider in made}
