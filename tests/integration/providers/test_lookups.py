"""Every outgoing call resolves its host name for the workspace that it is made for."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import httpx
import pytest

from providers.http import HttpProvider
from providers.smtp import SmtpProvider
from spine.kernel.http_client import HttpClient
from spine.kernel.http_client.resolver import current_workspace
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.account_models import HttpConfig, SmtpConfig, SmtpCredentials
from spine.webhooks.signing import Signer, new_secret
from tests.integration.providers.provider_fakes import http_account, make_call
from tests.raw_receiver import LOOPBACK, client
from workers.webhooks.attempt import attempt
from workers.webhooks.endpoint_cache import Endpoint
from workers.webhooks.jobs import DeliveryJob

NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def deliver(http_client: HttpClient) -> None:
    """Make an attempt to deliver an event."""
    endpoint = Endpoint(
        ("wsp_1", "wep_1"), "http://x.example/", {}, Signer([new_secret()]), 1, 5, None, False, False, False, 0.0
    )
    job = DeliveryJob("wsp_1", "dlv_1", "evt_1", "a.b", "wep_1", 0, 1, None, NOW, b"{}", 0.0, None)
    await attempt(http_client, endpoint, job)


async def call_http_provider(http_client: HttpClient) -> None:
    """Send a text through a service."""
    await HttpProvider(http_client).send(http_account("http://x.example/", HttpConfig()), make_call())


async def call_smtp_provider(http_client: HttpClient) -> None:
    """Send a mail."""
    config = SmtpConfig.model_validate({"sender": "spine@example.com", "tls": "none"})
    credentials = SmtpCredentials(host="x.example", port=25)
    account = ProviderAccount("wsp_1", "prv_1", "live", "email", "smtp", credentials, config, None)
    await SmtpProvider(http_client).send(account, make_call())


async def call_over_httpx(http_client: HttpClient) -> None:
    """Call with httpx's API."""
    async with http_client.client(workspace_id="wsp_1") as over_httpx:
        with pytest.raises(httpx.ConnectError):
            await over_httpx.get("http://x.example/")


async def check_target(http_client: HttpClient) -> None:
    """Check the URL of an endpoint."""
    await http_client.check_target("https://x.example/", workspace_id="wsp_1")


@pytest.mark.parametrize("call", [deliver, call_http_provider, call_smtp_provider, call_over_httpx, check_target])
async def test_a_name_is_resolved_for_the_workspace_of_the_call(call: Callable[[HttpClient], Awaitable[None]]) -> None:
    """Deliveries, both kinds of provider, httpx's API, and the check of a URL name their workspace."""
    resolved_for: list[str] = []

    async def lookup(_: str) -> list[str]:
        resolved_for.append(current_workspace.get())
        raise OSError("nowhere")

    async with client(LOOPBACK, lookup=lookup) as http_client:
        await call(http_client)
    assert resolved_for == ["wsp_1"]
