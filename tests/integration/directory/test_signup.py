"""Signing up: one call makes an organisation with both workspaces and a key to each."""

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from spine.cli.organisations import confirm_organisation
from tests.api import Api, client, serve
from tests.mail_server import Mailbox, open_mailbox

ORDER = {"type": "order.paid", "data": {}}
CONFIRM = {"SPINE_SIGNUP_CONFIRMATION": "required"}
WAIT_S = 20.0


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """A mail server in a thread of its own."""
    ready, done, found = threading.Event(), threading.Event(), []

    async def run() -> None:
        async with open_mailbox() as opened:
            found.append(opened)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert ready.wait(WAIT_S)
    yield found[0]
    done.set()
    thread.join(WAIT_S)


def with_mail(mailbox: Mailbox) -> dict[str, str]:
    """The settings of an installation that mails its confirmations."""
    return {**CONFIRM, "SPINE_MAIL_URL": f"smtp://127.0.0.1:{mailbox.port}", "SPINE_MAIL_FROM": "spine@example.com"}


def sign_up(url: str, email: str = "ann@example.com", **headers: str) -> httpx.Response:
    """Sign up."""
    with client(url, None) as anybody:
        return anybody.post("/v1/signup", json={"name": "Acme", "email": email}, headers=headers)


def use(url: str, key: str) -> tuple[int, str | None]:
    """Use a key; the status and the code of the answer."""
    with client(url, key) as caller:
        answer = caller.post("/v1/events", json=ORDER)
    return answer.status_code, answer.json().get("code")


def wait_for_mails(mailbox: Mailbox, count: int) -> list[Any]:
    """The mails, once there are so many."""
    until = time.monotonic() + WAIT_S
    while len(mailbox.mails) < count and time.monotonic() < until:
        time.sleep(0.02)
    return mailbox.mails


def test_one_call_without_a_key_gives_both_keys(api: Api) -> None:
    """Nobody and nothing but a name and an email is needed for a key that works at once (P-03, X18)."""
    with client(api.url, None) as anybody:
        answer = anybody.post("/v1/signup", json={"name": "Acme", "email": "ann@example.com"})
    assert answer.status_code == 201
    body = answer.json()
    assert body["organisation"]["id"].startswith("org_")
    for env in ("test", "live"):
        assert body[env]["api_key"].startswith(f"sk_{env}_")
        with client(api.url, body[env]["api_key"]) as caller:
            made = caller.post("/v1/events", json={"type": "order.paid", "data": {}})
        assert made.status_code == 201
        assert made.json()["env"] == env
        assert made.json()["workspace_id"] == body[env]["workspace_id"]


def test_closed_signup_is_refused_and_makes_nothing(api: Api) -> None:
    """SPINE_SIGNUP=closed answers 403, however often it is asked."""
    with serve(api.database_url, api.redis_url, SPINE_SIGNUP="closed") as closed, client(closed.url, None) as anybody:
        answer = anybody.post("/v1/signup", json={"name": "Acme", "email": "ann@example.com"})
    assert (answer.status_code, answer.json()["code"]) == (403, "signup_closed")


def test_a_signup_that_does_not_fit_names_the_field(api: Api) -> None:
    """A broken email or a missing name is told by its path, as everywhere."""
    with client(api.url, None) as anybody:
        answer = anybody.post("/v1/signup", json={"email": "nobody"})
    assert answer.status_code == 422
    assert {error["param"] for error in answer.json()["errors"]} == {"name", "email"}


def test_a_live_key_works_after_the_mailed_token_came_back(api: Api, mailbox: Mailbox) -> None:
    """Both keys are shown at once; the test key works, the live one is 403 until the address is confirmed by its mail."""
    with serve(api.database_url, api.redis_url, **with_mail(mailbox)) as running:
        made = sign_up(running.url).json()
        assert made["organisation"]["email_confirmed"] is False
        assert use(running.url, made["test"]["api_key"]) == (201, None)
        assert use(running.url, made["live"]["api_key"]) == (403, "email_not_confirmed")
        [mail] = wait_for_mails(mailbox, 1)
        assert mail.rcpt_tos == ["ann@example.com"]
        assert b"Acme" not in mail.content  # nobody writes to others through us
        [token] = re.findall(rb'"token": "([^"]+)"', mail.content.replace(b"=\r\n", b"").replace(b"=3D", b"="))
        with client(running.url, None) as anybody:
            assert anybody.post("/v1/signup/confirm", json={"token": "x"}).status_code == 404
            for _ in range(2):
                confirmed = anybody.post("/v1/signup/confirm", json={"token": token.decode()})
                assert (confirmed.status_code, confirmed.json()["email_confirmed"]) == (200, True)
        assert use(running.url, made["live"]["api_key"]) == (201, None)


async def test_the_operator_confirms_where_no_mail_is_sent(api: Api) -> None:
    """Without a mail server the live key waits for `spine organisations confirm`."""
    with serve(api.database_url, api.redis_url, **CONFIRM) as running:
        made = sign_up(running.url).json()
        assert use(running.url, made["live"]["api_key"]) == (403, "email_not_confirmed")
        await confirm_organisation(api.database_url, made["organisation"]["id"])
        for _ in range(200):  # the key is cached for 2 s
            if use(running.url, made["live"]["api_key"])[0] == 201:
                break
            await asyncio.sleep(0.1)
        assert use(running.url, made["live"]["api_key"]) == (201, None)


def test_nobody_has_a_third_party_mailed_without_end(api: Api, mailbox: Mailbox) -> None:
    """One mailbox gets three mails a day, whoever signs up with it and however it is written."""
    settings = with_mail(mailbox) | {"SPINE_TRUSTED_PROXIES": "127.0.0.1/32"}
    with serve(api.database_url, api.redis_url, **settings) as running:
        answers = [
            sign_up(running.url, email, **{"X-Forwarded-For": f"203.0.113.{n}"})
            for n, email in enumerate(["victim@example.com", "Victim@example.com", "victim@EXAMPLE.com"] * 3)
        ]
        assert [answer.status_code for answer in answers] == [201] * 3 + [429] * 6
        assert answers[-1].json()["code"] == "confirmation_mail_limited"
        assert int(answers[-1].headers["retry-after"]) > 0
        assert sign_up(running.url, "other@example.com").status_code == 201
        mails = wait_for_mails(mailbox, 4)
    assert len(mails) == 4


@pytest.mark.parametrize("redis", ["there", "away"])
def test_signups_are_limited_by_address(redis: str, database: str, redis_url: str) -> None:
    """One address signs up so often in an hour, with and without Redis; another one behind the same proxy is not held up."""
    url = redis_url if redis == "there" else "redis://127.0.0.1:1/0"
    settings = {"SPINE_SIGNUP_PER_HOUR": "3", "SPINE_TRUSTED_PROXIES": "127.0.0.1/32"}
    with serve(database, url, **settings) as running:
        statuses = [sign_up(running.url, **{"X-Forwarded-For": f"{n}, 203.0.113.9"}).status_code for n in range(5)]
        assert statuses == [201, 201, 201, 429, 429]
        refused = sign_up(running.url, **{"X-Forwarded-For": "203.0.113.9"})
        assert refused.json()["code"] == "signup_limited"
        assert sign_up(running.url, **{"X-Forwarded-For": "203.0.113.10"}).status_code == 201
