"""Fixtures of the message pipelines: workspaces that can send, and a client of the callback route."""

from collections.abc import Iterator

import httpx
import pytest

from tests.api import TLS, Api, Organisation
from tests.message_engine import NotificationsClient, notifications_client


@pytest.fixture
def client(org: Organisation) -> Iterator[NotificationsClient]:
    """A test workspace with a template, and a policy of short waits."""
    client = notifications_client(org.test)
    with client.http:
        client.template()
        client.policy(("whatsapp", "delivered", 1), ("sms", "delivered", 2))
        yield client


@pytest.fixture
def live(org: Organisation) -> Iterator[NotificationsClient]:
    """A live workspace with a template."""
    client = notifications_client(org.live)
    with client.http:
        client.template()
        yield client


@pytest.fixture
def provider(api: Api) -> Iterator[httpx.Client]:
    """An HTTP client without an API key, as a provider uses it."""
    with httpx.Client(base_url=api.url, trust_env=False, verify=TLS) as client:
        yield client
