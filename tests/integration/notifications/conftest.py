"""Fixtures of the notification tests: workspaces that can send."""

import httpx
import pytest

from tests.message_engine import NotificationsClient


@pytest.fixture
def client(http: httpx.Client) -> NotificationsClient:
    """A test workspace with a template for every channel."""
    client = NotificationsClient(http)
    client.template()
    return client


@pytest.fixture
def signing_secret() -> str:
    """The signing secret of the live workspace's HTTP provider."""
    return "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def live_client(live_http: httpx.Client, signing_secret: str) -> NotificationsClient:
    """A live workspace with a template, and an HTTP provider for SMS."""
    client = NotificationsClient(live_http)
    client.template()
    account = {
        "channel": "sms",
        "kind": "http",
        "credentials": {"url": "http://127.0.0.1:9/", "secret": signing_secret},
    }
    client.post("/notifications/v1/provider_accounts", account)
    return client
