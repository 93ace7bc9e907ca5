"""The providers that are spoken: every adapter, in one place and in plain sight."""

import asyncpg

from providers.http import HttpProvider
from providers.protocol import Provider
from providers.sandbox import Sandbox
from providers.smtp import SmtpProvider
from spine.kernel.http_client import HttpClient


def providers(pool: "asyncpg.Pool[asyncpg.Record]", http_client: HttpClient) -> dict[str, Provider]:
    """Every adapter by its kind; `pool` is what the sandbox keeps its memory in."""
    made: tuple[Provider, ...] = (Sandbox(pool), SmtpProvider(http_client), HttpProvider(http_client))
    return {provider.kind: provider for provider in made}
