"""Provider accounts: a stored secret goes nowhere that its owner did not send it, and a sender is one that can be written."""

from typing import Any

import pytest

from tests.api import Api
from tests.message_engine import NotificationsClient, fetch_value

ACCOUNTS = "/notifications/v1/provider_accounts"
MAIL: dict[str, Any] = {
    "channel": "email",
    "kind": "smtp",
    "credentials": {"host": "127.0.0.1", "port": 25, "username": "me", "password": "right"},
    "config": {"sender": "spine@example.com", "tls": "implicit"},
}
CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"credentials": {"host": "127.0.0.2"}}, "credentials.host"),
    ({"credentials": {"port": 2525}}, "credentials.port"),
    ({"credentials": {"username": "them"}}, "credentials.username"),
    ({"config": {"tls": "starttls"}}, "config.tls"),
]


@pytest.mark.parametrize(("change", "field"), CHANGES, ids=[field for _, field in CHANGES])
async def test_a_password_goes_nowhere_new(
    api: Api, live_client: NotificationsClient, change: dict[str, Any], field: str
) -> None:
    """Another host, port or user, or less TLS, needs the password again; without it nothing is changed."""
    id = live_client.post(ACCOUNTS, MAIL)["id"]
    path, query = f"{ACCOUNTS}/{id}", "SELECT credentials FROM spine.provider_accounts WHERE id = $1"
    sealed = await fetch_value(api, query, id)
    refused = live_client.post(path, change, status=422, method="PATCH")
    assert (refused["code"], refused["param"]) == ("secret_required", "credentials.password")
    assert [error["param"] for error in refused["errors"]] == ["credentials.password", field]
    assert await fetch_value(api, query, id) == sealed
    assert live_client.get(path)["version"] == 1
    again = change | {"credentials": change.get("credentials", {}) | {"password": "right"}}
    assert live_client.post(path, again, status=200, method="PATCH")["version"] == 2


def test_what_sends_a_password_nowhere_new_needs_none(live_client: NotificationsClient) -> None:
    """The same values, more TLS, a new password, a new sender, or no password any more."""
    account = MAIL | {"config": MAIL["config"] | {"tls": "starttls"}}
    path = f"{ACCOUNTS}/{live_client.post(ACCOUNTS, account)['id']}"
    for change in (
        {"credentials": {"host": "127.0.0.1", "port": 25, "username": "me"}},
        {"config": {"tls": "implicit"}},
        {"credentials": {"password": "other"}},
        {"config": {"sender": "other@example.com"}, "priority": 3},
        {"credentials": {"password": None, "host": "127.0.0.2"}},
        {"credentials": {"username": "nobody"}},
    ):
        live_client.post(path, change, status=200, method="PATCH")


def test_a_login_without_tls_is_refused(live_client: NotificationsClient) -> None:
    """On creation, and on every change that would lead there."""
    clear = MAIL | {"config": MAIL["config"] | {"tls": "none"}}
    refused = live_client.post(ACCOUNTS, clear, status=422)
    assert (refused["code"], refused["param"]) == ("login_without_tls", "config.tls")
    path = f"{ACCOUNTS}/{live_client.post(ACCOUNTS, MAIL)['id']}"
    change = {"config": {"tls": "none"}, "credentials": {"password": "right"}}
    assert live_client.post(path, change, status=422, method="PATCH")["code"] == "login_without_tls"
    open_relay = clear | {"credentials": {"host": "127.0.0.1"}}
    path = f"{ACCOUNTS}/{live_client.post(ACCOUNTS, open_relay)['id']}"
    for login in ({"username": "me"}, {"password": "right"}):
        assert live_client.post(path, {"credentials": login}, status=422, method="PATCH")["code"] == "login_without_tls"


def test_a_signing_secret_signs_nothing_for_a_new_url(live_client: NotificationsClient, signing_secret: str) -> None:
    """The same holds for the URL and the secret of the HTTP provider."""
    (account,) = live_client.get(ACCOUNTS)["data"]
    path, url = f"{ACCOUNTS}/{account['id']}", "http://127.0.0.1:10/"
    refused = live_client.post(path, {"credentials": {"url": url}}, status=422, method="PATCH")
    assert (refused["code"], refused["param"]) == ("secret_required", "credentials.secret")
    live_client.post(path, {"credentials": {"url": url, "secret": signing_secret}}, status=200, method="PATCH")


@pytest.mark.parametrize("address", ["a@[x", "a@x..y", "ü@example.com", "a,b@example.com", "a@-x.example"])
@pytest.mark.parametrize("field", ["sender", "reply_to"])
def test_an_address_that_cannot_be_written_is_refused(
    live_client: NotificationsClient, field: str, address: str
) -> None:
    """When the account is saved and when it is changed, by the name of the field. It would end in the head of every mail."""
    config = MAIL["config"] | {field: address}
    refused = live_client.post(ACCOUNTS, MAIL | {"config": config}, status=422)
    assert (refused["code"], refused["param"]) == ("validation_failed", f"config.{field}")
    path = f"{ACCOUNTS}/{live_client.post(ACCOUNTS, MAIL)['id']}"
    changed = live_client.post(path, {"config": {field: address}}, status=422, method="PATCH")
    assert changed["param"] == f"config.{field}"


def test_a_senders_domain_is_stored_in_ascii(live_client: NotificationsClient) -> None:
    """An internationalised domain is written as IDNA, which every mail server takes."""
    account = live_client.post(ACCOUNTS, MAIL | {"config": {"sender": "spine@bücher.example"}})
    assert account["config"]["sender"] == "spine@xn--bcher-kva.example"
