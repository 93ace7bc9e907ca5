"""The list of all provider adapters."""

import asyncpg

from providers.http import HttpProvider
from providers.protocol import Provider
from providers.sandbox import SandboxProvider
from providers.smtp import SmtpProvider
from spine.kernel.http_client import HttpClient


def open_adapters(pool: "asyncpg.Pool[asyncpg.Record]", http_client: HttpClient) -> dict[str, Provider]:
    """Return every adapter by its kind. The sandbox keeps its state in the database of `pool`."""
    adapters: tuple[Provider, ...] = (SandboxProvider(pool), SmtpProvider(http_client), HttpProvider(http_client))
    return {provider.kind: provider for provider in adapters}
