"""`spine listen`: what reaches the developer's server, and that nothing it does ends the listening."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from spine.cli.event_feed import MAX_INTERVAL_S, MIN_INTERVAL_S
from tests.fake_api import NOW, FakeApi, page, problem

_SERVER = "http://127.0.0.1:3000/hooks"


def _event(number: int, **changes: Any) -> dict[str, Any]:
    event = {
        "object": "event",
        "created_at": "2026-11-21T12:00:00.000Z",
        "id": f"evt_{number}",
        "type": "order.paid",
        "timestamp": "2026-11-21T12:00:00.000Z",
        "workspace_id": "wsp_1",
        "env": "test",
        "api_version": "2026-11-01",
        "request_id": "req_1",
        "actor": {"type": "api_key", "id": "key_1"},
        "sequence": number,
        "data": {"order": number, "name": "Zoë"},
    }
    return event | changes


@pytest.fixture
def api(tmp_path: Path) -> FakeApi:
    """An API whose listener keeps its secret in a directory of this test."""
    return FakeApi(SPINE_DATA_DIR=str(tmp_path))


def _feed(api: FakeApi, *pages: Any) -> FakeApi:
    return api.on("GET /v1/events", page(cursor="c0"), *pages, KeyboardInterrupt())


def test_what_is_forwarded_verifies_elsewhere(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server gets the webhook's own fields, signed so that the standardwebhooks package verifies it."""
    _feed(api, page(_event(1), cursor="c1")).on("POST /hooks", (204, None))
    told = api.run("listen", "--forward-to", _SERVER, "--events", "order.*")
    assert told.exit_code == 0, told.stderr
    request = next(request for request in api.requests if request.method == "POST")
    secret = json.loads((tmp_path / "listen.json").read_text())["secret"]
    monkeypatch.setattr("standardwebhooks.webhooks.datetime", _Standing)
    Webhook(secret).verify(request.content, dict(request.headers))
    assert request.headers["webhook-id"] == "evt_1"
    assert json.loads(request.content) == {k: v for k, v in _event(1).items() if k not in ("object", "created_at")}
    assert secret in told.stderr
    assert told.stdout.startswith("12:00:00  order.paid  evt_1  204  ")
    assert "1 received, 1 taken" in told.stderr


class _Standing:
    """The package's clock, standing where the test's stands."""

    fromtimestamp = staticmethod(type(NOW).fromtimestamp)

    @staticmethod
    def now(tz: Any = None) -> Any:
        return NOW.astimezone(tz)


def test_the_secret_stays(api: FakeApi, tmp_path: Path) -> None:
    """The secret is made once, kept closed, and the same at the next start."""
    _feed(api, KeyboardInterrupt())
    first = api.run("listen", "--forward-to", _SERVER).stderr
    second = _feed(FakeApi(SPINE_DATA_DIR=str(tmp_path))).run("listen", "--forward-to", _SERVER).stderr
    kept = tmp_path / "listen.json"
    secret = json.loads(kept.read_text())["secret"]
    assert secret in first
    assert secret in second
    assert kept.stat().st_mode & 0o777 == 0o600


def test_without_a_data_directory_the_secret_is_the_users(tmp_path: Path) -> None:
    """Where `make up` never ran, the secret lies in the user's own settings."""
    api = _feed(FakeApi(SPINE_DATA_DIR=str(tmp_path / "none"), XDG_CONFIG_HOME=str(tmp_path)))
    assert api.run("listen", "--forward-to", _SERVER).exit_code == 0
    assert (tmp_path / "spine" / "listen.json").exists()


def test_a_refusal_is_tried_once_more_and_said(api: FakeApi) -> None:
    """A server that is away is tried once more for each event; the listening goes on with the next."""
    _feed(api, page(_event(1), _event(2), cursor="c1"))
    api.on(
        "POST /hooks",
        httpx.ConnectError("refused"),
        httpx.ConnectError("refused"),
        httpx.ConnectError("refused"),
        (200, {}),
    )
    told = api.run("listen", "--forward-to", _SERVER)
    assert told.exit_code == 0
    assert [request.headers["webhook-id"] for request in api.requests if request.method == "POST"] == ["evt_1"] * 2 + [
        "evt_2"
    ] * 2
    assert "trying once more" in told.stderr
    assert "evt_1  refused" in told.stdout
    assert "evt_2  200" in told.stdout
    assert "2 received, 1 taken" in told.stderr


def test_an_error_answer_is_an_answer(api: FakeApi) -> None:
    """A server that answers 500 is shown so, and not called again."""
    _feed(api, page(_event(1), cursor="c1")).on("POST /hooks", (500, {}))
    told = api.run("listen", "--forward-to", _SERVER, "--json")
    line = json.loads(told.stdout)
    assert line["event"] == _event(1)
    assert line["forwarded"]["status_code"] == 500
    assert sum(request.method == "POST" for request in api.requests) == 1


def test_print_only_forwards_nothing(api: FakeApi) -> None:
    """--print-only shows events with their data and calls nobody."""
    told = _feed(api, page(_event(1), cursor="c1")).run("listen", "--print-only")
    assert "Zoë" in told.stdout
    assert {request.method for request in api.requests} == {"GET"}


def test_an_erased_payload_is_not_forwarded(api: FakeApi) -> None:
    """An event whose payload was erased is told, and not made up."""
    told = _feed(api, page(_event(1, data=None), cursor="c1")).run("listen", "--forward-to", _SERVER)
    assert "erased" in told.stdout
    assert {request.method for request in api.requests} == {"GET"}


def test_an_absent_api_is_waited_for(api: FakeApi) -> None:
    """An API that goes away is waited for, said once, and read on from the same cursor: no event is left out or repeated."""
    gone = httpx.ConnectError("gone")
    _feed(api, page(_event(1), cursor="c1"), gone, gone, page(_event(2), cursor="c2"))
    told = api.run("listen", "--print-only", "--json")
    assert [json.loads(line)["event"]["id"] for line in told.stdout.splitlines()] == ["evt_1", "evt_2"]
    assert told.stderr.count("lost the API") == 1
    assert told.stderr.count("is back") == 1
    assert [request.url.params.get("cursor") for request in api.requests] == [None, "c0", "c1", "c1", "c1", "c2"]


def test_a_revoked_key_ends_it(api: FakeApi) -> None:
    """What waiting does not mend is told and ends with exit code 1."""
    told = _feed(api, problem(401, "unauthenticated", "give a valid key")).run("listen", "--print-only")
    assert told.exit_code == 1
    assert "unauthenticated" in told.stderr


def test_polling_is_polite(api: FakeApi) -> None:
    """While events come it looks twice a second; in the quiet ever less often, down to every two; a full page is read on at once."""
    _feed(
        api,
        page(_event(1), more=True, cursor="c1"),
        page(_event(2), cursor="c2"),
        *[page()] * 9,
        page(_event(3), cursor="c3"),
    )
    api.run("listen", "--print-only")
    assert api.slept[0] == MIN_INTERVAL_S
    assert api.slept[1:10] == sorted(api.slept[1:10])
    assert api.slept[9] == MAX_INTERVAL_S
    assert api.slept[10] == MIN_INTERVAL_S
    assert len(api.slept) == 11
