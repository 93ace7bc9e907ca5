"""`spine listen`: the forwarded requests, and the handling of errors of the server and the API."""

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
    """A fake API with a data directory for the listener's secret."""
    return FakeApi(SPINE_DATA_DIR=str(tmp_path))


def _feed(api: FakeApi, *pages: Any) -> FakeApi:
    return api.on("GET /v1/events", page(cursor="c0"), *pages, KeyboardInterrupt())


def test_forwarded_events_verify(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server gets the fields of a webhook, with a signature that the standardwebhooks package verifies."""
    _feed(api, page(_event(1), cursor="c1")).on("POST /hooks", (204, None))
    result = api.run("listen", "--forward-to", _SERVER, "--events", "order.*")
    assert result.exit_code == 0, result.stderr
    request = next(request for request in api.requests if request.method == "POST")
    secret = json.loads((tmp_path / "listen.json").read_text())["secret"]
    monkeypatch.setattr("standardwebhooks.webhooks.datetime", _FixedClock)
    Webhook(secret).verify(request.content, dict(request.headers))
    assert request.headers["webhook-id"] == "evt_1"
    assert json.loads(request.content) == {k: v for k, v in _event(1).items() if k not in ("object", "created_at")}
    assert secret in result.stderr
    assert result.stdout.startswith("12:00:00  order.paid  evt_1  204  ")
    assert "1 received, 1 taken" in result.stderr


class _FixedClock:
    """The clock of the package, with the time of the test."""

    fromtimestamp = staticmethod(type(NOW).fromtimestamp)

    @staticmethod
    def now(tz: Any = None) -> Any:
        return NOW.astimezone(tz)


def test_the_secret_is_kept(api: FakeApi, tmp_path: Path) -> None:
    """The secret is created once, readable by the user only, and the same at the next start."""
    _feed(api, KeyboardInterrupt())
    first = api.run("listen", "--forward-to", _SERVER).stderr
    second = _feed(FakeApi(SPINE_DATA_DIR=str(tmp_path))).run("listen", "--forward-to", _SERVER).stderr
    kept = tmp_path / "listen.json"
    secret = json.loads(kept.read_text())["secret"]
    assert secret in first
    assert secret in second
    assert kept.stat().st_mode & 0o777 == 0o600


def test_secret_without_a_data_directory(tmp_path: Path) -> None:
    """Without a data directory the secret is stored in the user's configuration."""
    api = _feed(FakeApi(SPINE_DATA_DIR=str(tmp_path / "none"), XDG_CONFIG_HOME=str(tmp_path)))
    assert api.run("listen", "--forward-to", _SERVER).exit_code == 0
    assert (tmp_path / "spine" / "listen.json").exists()


def test_unreachable_server_is_retried_once(api: FakeApi) -> None:
    """An event without a response is posted once more; then the next event is forwarded."""
    _feed(api, page(_event(1), _event(2), cursor="c1"))
    api.on(
        "POST /hooks",
        httpx.ConnectError("refused"),
        httpx.ConnectError("refused"),
        httpx.ConnectError("refused"),
        (200, {}),
    )
    result = api.run("listen", "--forward-to", _SERVER)
    assert result.exit_code == 0
    assert [request.headers["webhook-id"] for request in api.requests if request.method == "POST"] == ["evt_1"] * 2 + [
        "evt_2"
    ] * 2
    assert "trying once more" in result.stderr
    assert "evt_1  refused" in result.stdout
    assert "evt_2  200" in result.stdout
    assert "2 received, 1 taken" in result.stderr


def test_error_status_is_not_retried(api: FakeApi) -> None:
    """A response with status 500 is printed, and the server is not called again."""
    _feed(api, page(_event(1), cursor="c1")).on("POST /hooks", (500, {}))
    result = api.run("listen", "--forward-to", _SERVER, "--json")
    line = json.loads(result.stdout)
    assert line["event"] == _event(1)
    assert line["forwarded"]["status_code"] == 500
    assert sum(request.method == "POST" for request in api.requests) == 1


def test_print_only_forwards_nothing(api: FakeApi) -> None:
    """--print-only prints events with their data and forwards none."""
    result = _feed(api, page(_event(1), cursor="c1")).run("listen", "--print-only")
    assert "Zoë" in result.stdout
    assert {request.method for request in api.requests} == {"GET"}


def test_an_erased_payload_is_not_forwarded(api: FakeApi) -> None:
    """An event with an erased payload is printed and not forwarded."""
    result = _feed(api, page(_event(1, data=None), cursor="c1")).run("listen", "--forward-to", _SERVER)
    assert "erased" in result.stdout
    assert {request.method for request in api.requests} == {"GET"}


def test_waits_for_an_unreachable_api(api: FakeApi) -> None:
    """If the API is unreachable, it is reported once and reading continues at the same cursor: no event is lost or repeated."""
    gone = httpx.ConnectError("gone")
    _feed(api, page(_event(1), cursor="c1"), gone, gone, page(_event(2), cursor="c2"))
    result = api.run("listen", "--print-only", "--json")
    assert [json.loads(line)["event"]["id"] for line in result.stdout.splitlines()] == ["evt_1", "evt_2"]
    assert result.stderr.count("lost the API") == 1
    assert result.stderr.count("is back") == 1
    assert [request.url.params.get("cursor") for request in api.requests] == [None, "c0", "c1", "c1", "c1", "c2"]


def test_a_revoked_key_ends_the_command(api: FakeApi) -> None:
    """An error that waiting does not end gives exit code 1."""
    result = _feed(api, problem(401, "unauthenticated", "give a valid key")).run("listen", "--print-only")
    assert result.exit_code == 1
    assert "unauthenticated" in result.stderr


def test_polling_interval(api: FakeApi) -> None:
    """The interval is 0.5 s after events and grows to 2 s without events. After a full page the next is read at once."""
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
