"""The command line against a fake API: arguments, output, errors, exit codes."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer

from spine.cli.attempt_list import format_attempts
from spine.cli.errors import Failure
from spine.cli.locations import api_key, api_url, settings_files
from spine.cli.output import plain
from spine.cli.times import format_duration, parse_duration_s, parse_time
from tests.fake_api import NOW, FakeApi, page, problem


def _attempt(number: int, series: int = 1, **changes: Any) -> dict[str, Any]:
    attempt = {
        "number": number,
        "series": series,
        "started_at": f"2026-11-21T12:0{number}:00.000Z",
        "ended_at": f"2026-11-21T12:0{number}:00.012Z",
        "status_code": 503,
        "error": "http_status",
        "response_body": "try\n  later\x1b[31m",
        "retry_after_s": None,
        "next_attempt_at": f"2026-11-21T12:0{number}:04.012Z",
    }
    return attempt | changes


def _delivery(status: str = "dead", *attempts: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "dlv_1",
        "object": "delivery",
        "event_id": "evt_1",
        "event_type": "order.paid",
        "endpoint_id": "whe_1",
        "status": status,
        "reason": "attempts_exhausted" if status == "dead" else None,
        "attempts": list(attempts),
        "series": 1,
        "next_attempt_at": None,
        "replay_id": None,
        "created_at": "2026-11-21T12:00:00.000Z",
        "closed_at": None,
    }


def _replay(status: str, done: int, failed: int = 0) -> dict[str, Any]:
    return {
        "id": "rpl_1",
        "status": status,
        "filter": {"endpoint_id": "whe_1"},
        "progress": {"total": 3, "done": done, "failed": failed},
        "rate_per_s": None,
        "created_at": "2026-11-21T12:00:00.000Z",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", "2026-11-21T10:00:00.000Z"),
        ("90s", "2026-11-21T11:58:30.000Z"),
        ("1w", "2026-11-14T12:00:00.000Z"),
        ("2026-11-20", "2026-11-20T00:00:00.000Z"),
        ("2026-11-20T08:00:00+05:30", "2026-11-20T02:30:00.000Z"),
        ("2026-11-20T08:00:00Z", "2026-11-20T08:00:00.000Z"),
    ],
)
def test_times_are_durations_or_iso(text: str, expected: str) -> None:
    """A time is a duration before now or ISO 8601, in UTC without an offset. The API gets RFC 3339 in UTC."""
    assert parse_time(text, NOW) == expected


@pytest.mark.parametrize("text", ["yesterday", "", "2x", "-2h", "2026-13-01"])
def test_other_times_are_refused(text: str) -> None:
    """Another text is refused, and the error lists the valid forms."""
    with pytest.raises(typer.BadParameter, match="2h for two hours ago"):
        parse_time(text, NOW)


def test_durations_are_parsed_and_formatted() -> None:
    """Durations are parsed to seconds and formatted with their units."""
    assert (parse_duration_s("7d"), parse_duration_s("0s")) == (604_800, 0)
    assert [format_duration(s) for s in (0.0123, 4, 65, 7200, 90061)] == [
        "12 ms",
        "4 s",
        "1 m 5 s",
        "2 h",
        "1 d 1 h 1 m 1 s",
    ]


def test_api_url() -> None:
    """The URL is --url, else SPINE_URL, else this machine's port. A host of all addresses becomes loopback."""
    environ = {"SPINE_URL": "https://spine.example.com/", "SPINE_HTTP_PORT": "9000"}
    assert api_url(environ, "http://other:1") == "http://other:1"
    assert api_url(environ, None) == "https://spine.example.com"
    assert api_url({"SPINE_HTTP_PORT": "9000", "SPINE_HTTP_HOST": "0.0.0.0"}, None) == "http://127.0.0.1:9000"
    assert api_url({"SPINE_HTTP_HOST": "::1"}, None) == "http://[::1]:8080"
    for wrong in ("spine.example.com", "http://", "http://host:70000", "ftp://host"):
        with pytest.raises(Failure, match="no address"):
            api_url({}, wrong)


def test_api_key(tmp_path: Path) -> None:
    """The key is --key, else SPINE_API_KEY, else the key of `make up`. --live requires a live key."""
    (tmp_path / "keys.json").write_text('{"test_key": "sk_test_kept", "live_key": "sk_live_kept"}')
    kept = {"SPINE_DATA_DIR": str(tmp_path)}
    assert api_key({**kept, "SPINE_API_KEY": "sk_test_env"}, "sk_test_given", live=False) == "sk_test_given"
    assert api_key({**kept, "SPINE_API_KEY": "sk_test_env"}, None, live=False) == "sk_test_env"
    assert api_key(kept, None, live=False) == "sk_test_kept"
    assert api_key(kept, None, live=True) == "sk_live_kept"
    with pytest.raises(Failure, match="no sk_live_ one"):
        api_key({"SPINE_API_KEY": "sk_test_env"}, None, live=True)
    with pytest.raises(Failure, match="spine keys create --org") as none:
        api_key({"SPINE_DATA_DIR": str(tmp_path / "nowhere")}, None, live=False)
    assert none.value.exit_code == 2


def test_up_does_not_read_its_own_settings_file(tmp_path: Path) -> None:
    """Every command except `up` reads the settings file that `make up` writes."""
    own = tmp_path / "environment"
    own.write_text("DATABASE_URL=postgresql://own")
    environ = {"SPINE_DATA_DIR": str(tmp_path)}
    assert own in settings_files(environ, ["doctor"])
    assert own not in settings_files(environ, ["up"])
    assert own not in settings_files({"SPINE_DATA_DIR": str(tmp_path / "other")}, ["doctor"])


def test_error_responses_fail_the_command() -> None:
    """An error response gives exit code 1, its detail, code and field on stderr, and nothing on stdout."""
    api = FakeApi().on("GET /v1/deliveries/dlv_x", problem(422, "validation_failed", "that is wrong", param="url"))
    result = api.run("deliveries", "show", "dlv_x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: that is wrong (validation_failed, field url)\n"
    machine = api.run("deliveries", "show", "dlv_x", "--json")
    assert machine.exit_code == 1
    assert json.loads(machine.stderr)["code"] == "validation_failed"


def test_unreachable_api() -> None:
    """If the API does not respond, the error has the address and how to start it or choose another."""
    result = FakeApi().on("GET /v1/replays/rpl_1", httpx.ConnectError("refused")).run("replays", "show", "rpl_1")
    assert result.exit_code == 1
    for part in ("http://127.0.0.1:8080", "refused", "make up", "--url"):
        assert part in result.stderr


def test_another_server_is_recognised() -> None:
    """A response that is not a document of Spine is an error."""
    result = FakeApi().on("GET /v1/replays/rpl_1", (404, [])).run("replays", "show", "rpl_1")
    assert result.exit_code == 1
    assert "no Spine API" in result.stderr


def test_busy_api_is_called_again_with_the_same_key() -> None:
    """A change with a 503 response is retried with the same Idempotency-Key, so that it is made once."""
    api = FakeApi().on(
        "POST /v1/api_keys/key_1/revoke",
        problem(503, "unavailable", "in a moment"),
        {"id": "key_1", "name": "n", "status": "revoked"},
    )
    assert api.run("keys", "revoke", "key_1").exit_code == 0
    assert len(api.requests) == 2
    assert len({request.headers["Idempotency-Key"] for request in api.requests}) == 1
    assert api.requests[0].headers["Authorization"] == f"Bearer {api.environ['SPINE_API_KEY']}"


def test_invalid_command_lines_have_exit_code_2() -> None:
    """An invalid command line gives exit code 2 before any request."""
    api = FakeApi()
    for words in (
        ("deliveries", "list", "--status", "lost"),
        ("dead-letters", "replay", "dlv_1", "--endpoint", "whe_1"),
        ("dead-letters", "list", "--since", "yesterday"),
        ("events", "send", "order.paid", "[1]"),
        ("events", "send", "order.paid", "{"),
        ("endpoints", "create", "http://r", "--header", "no colon"),
        ("endpoints", "create", "http://r", "--filter", "[1]"),
        ("endpoints", "create", "http://r", "--filter", "{"),
        ("keys", "create", "--org", "Acme"),
        ("keys", "create", "--org", "Acme", "--email", "a@acme.example.com"),
        ("organisations", "confirm", "org_1"),
        ("listen",),
        ("listen", "--forward-to", "localhost:3000"),
        ("frobnicate",),
    ):
        assert api.run(*words).exit_code == 2, words
    assert api.requests == []


def test_a_list_reads_as_many_pages_as_it_needs() -> None:
    """--limit counts items, not pages. stderr says if there are more, and ids are never cut."""
    long_id = "dlv_" + "0" * 26
    api = FakeApi().on(
        "GET /v1/deliveries",
        page(*[_delivery() | {"id": long_id}] * 100, more=True, cursor="c1"),
        page(*[_delivery()] * 100, more=True, cursor="c2"),
    )
    result = api.run("deliveries", "list", "--limit", "150", "--status", "dead", "--endpoint", "whe_1")
    assert result.stdout.count("order.paid") == 150
    assert long_id in result.stdout
    assert "there are more" in result.stderr
    assert [dict(request.url.params) for request in api.requests] == [
        {"limit": "100", "status": "dead", "endpoint_id": "whe_1"},
        {"limit": "100", "status": "dead", "endpoint_id": "whe_1", "cursor": "c1"},
    ]


def test_json_is_the_response() -> None:
    """With --json stdout is one document with the API's fields."""
    result = FakeApi().on("GET /v1/deliveries", page(_delivery())).run("deliveries", "list", "--json")
    assert json.loads(result.stdout) == {"data": [_delivery()], "has_more": False}


def test_an_empty_list_says_so() -> None:
    """An empty list is a sentence on stderr, or an empty document with --json."""
    api = FakeApi().on("GET /v1/dead_letters", page())
    assert api.run("dead-letters", "list").stderr == "no dead letters\n"
    assert json.loads(api.run("dead-letters", "list", "--json").stdout)["data"] == []


def test_attempts_are_in_the_order_of_time() -> None:
    """Attempts are shown in order with the wait before, the response, its body and the next attempt. A replay is a new series."""
    attempts = [
        _attempt(1, retry_after_s=60.0),
        _attempt(2),
        _attempt(1, series=2, status_code=200, error=None, next_attempt_at=None, response_body=None),
    ]
    lines = [line for line, _ in format_attempts(attempts)]
    assert lines[0] == "first series"
    assert lines[1] == "  #1  2026-11-21 12:01:00  503 http_status  in 12 ms"
    assert lines[3] == "      asked us to wait 1 m"
    assert lines[4] == "      next attempt in 4 s, at 2026-11-21 12:01:04"
    assert lines[5] == "  #2  2026-11-21 12:02:00  1 m later  503 http_status  in 12 ms"
    assert lines[-2:] == ["series 2, a replay", "  #1  2026-11-21 12:01:00  0 ms later  200 delivered  in 12 ms"]


def test_a_receiver_cannot_control_the_terminal() -> None:
    """Control characters in a receiver's response are printed as text."""
    result = (
        FakeApi().on("GET /v1/deliveries/dlv_1", _delivery("retrying", _attempt(1))).run("deliveries", "show", "dlv_1")
    )
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert plain("a\x1b[2Jb\r\x07") == "a\\x1b[2Jb\\r\\x07"


def test_dead_letters_are_counted_before_they_are_replayed() -> None:
    """A replay by filter reads the count, asks for confirmation, then starts with the same filter."""
    api = FakeApi().on("POST /v1/replays", {"total": 3}, (201, _replay("running", 0)))
    api.on("GET /v1/replays/rpl_1", _replay("running", 1), _replay("done", 3))
    result = api.run(
        *("dead-letters", "replay", "--endpoint", "whe_1", "--type", "order.*", "--since", "2h", "--rate", "5"),
        input="y\n",
    )
    assert result.exit_code == 0, result.stderr
    assert "Replay 3 dead letters?" in result.stderr
    assert "3 delivered, 0 failed, of 3" in result.stdout
    filter = {"endpoint_id": "whe_1", "types": ["order.*"], "since": "2026-11-21T10:00:00.000Z", "status": "dead"}
    assert api.sent("POST /v1/replays") == [{"filter": filter, "dry_run": True}, {"filter": filter, "rate_per_s": 5.0}]


@pytest.mark.parametrize(("answer", "code"), [("n\n", 0), ("", 1)])
def test_nothing_starts_without_confirmation(answer: str, code: int) -> None:
    """Neither `n` nor an empty input starts a replay."""
    api = FakeApi().on("POST /v1/replays", {"total": 3})
    result = api.run("dead-letters", "replay", input=answer)
    assert result.exit_code == code
    assert api.sent("POST /v1/replays") == [{"filter": {"status": "dead"}, "dry_run": True}]


@pytest.mark.parametrize("total", [0, 1000])
def test_a_count_that_is_not_final_is_said(total: int) -> None:
    """A history that is too long to count has at least so many dead letters; the command asks even if none was found so far."""
    api = FakeApi().on("POST /v1/replays", {"total": total, "at_least": True})
    result = api.run("dead-letters", "replay", input="n\n")
    assert f"Replay at least {total} dead letters?" in result.stderr


def test_json_requires_yes() -> None:
    """With --json and without --yes a replay fails, unless no dead letter is selected."""
    api = FakeApi().on("POST /v1/replays", {"total": 3})
    assert api.run("dead-letters", "replay", "--json").exit_code == 2
    assert len(api.requests) == 1
    none = FakeApi().on("POST /v1/replays", {"total": 0}).run("dead-letters", "replay", "--json")
    assert (none.exit_code, json.loads(none.stdout)) == (0, {"total": 0})


def test_ctrl_c_pauses_the_replay() -> None:
    """Ctrl-C pauses the replay, exits with 130 and prints the command that resumes it."""
    api = FakeApi().on("POST /v1/replays", {"total": 3}, (201, _replay("running", 0)))
    api.on("GET /v1/replays/rpl_1", _replay("running", 1), KeyboardInterrupt())
    api.on("POST /v1/replays/rpl_1/pause", _replay("paused", 1))
    result = api.run("dead-letters", "replay", "--yes")
    assert result.exit_code == 130
    assert "spine replays resume rpl_1" in result.stderr
    assert api.requests[-1].url.path == "/v1/replays/rpl_1/pause"


def test_a_stalled_replay_is_explained() -> None:
    """If no delivery ends for a while, the possible reasons are printed once."""
    api = FakeApi().on("POST /v1/replays", {"total": 3}, (201, _replay("running", 0)))
    api.on("GET /v1/replays/rpl_1", *[_replay("running", 1)] * 90, _replay("done", 3))
    result = api.run("dead-letters", "replay", "--yes")
    assert result.exit_code == 0
    assert result.stderr.count("--status held") == 1


def test_failures_of_a_replay_fail_the_command() -> None:
    """A replay that ends with failures gives exit code 1."""
    api = FakeApi().on("POST /v1/replays", {"total": 3}, (201, _replay("running", 0)))
    api.on("GET /v1/replays/rpl_1", _replay("done", 2, failed=1))
    result = api.run("dead-letters", "replay", "--yes")
    assert result.exit_code == 1
    assert "1 of 3 failed" in result.stderr


def test_one_dead_letter_needs_no_count() -> None:
    """A single dead letter is replayed by its id, without a count."""
    api = FakeApi().on("POST /v1/deliveries/dlv_1/replay", _delivery("pending"))
    assert api.run("dead-letters", "replay", "dlv_1").exit_code == 0
    assert len(api.requests) == 1


def _endpoint(**more: Any) -> dict[str, Any]:
    """Return an endpoint as the API returns it."""
    texts = dict.fromkeys(("url", "description", "signature", "disabled_reason", "rate_per_s"), "")
    return texts | {
        "id": "whe_1",
        "status": "enabled",
        "events": ["*"],
        "filter": None,
        "max_in_flight": 20,
        "created_at": NOW.isoformat(),
    } | more  # fmt: skip


def test_create_an_endpoint_with_a_filter() -> None:
    """--filter is JSON, sent and printed unchanged. Without it no filter is sent."""
    api = FakeApi().on("POST /v1/webhook_endpoints", _endpoint(filter={"tier": "gold"}))
    result = api.run("endpoints", "create", "http://r", "--filter", '{"tier": "gold"}')
    assert (result.exit_code, '{"tier":"gold"}' in result.stdout) == (0, True)
    assert api.run("endpoints", "create", "http://r").exit_code == 0
    sent = api.sent("POST /v1/webhook_endpoints")
    assert (sent[0]["filter"], "filter" in sent[1]) == ({"tier": "gold"}, False)


def test_enable_with_held_events() -> None:
    """--held is all, none, or the time from which events are delivered."""
    api = FakeApi().on("POST /v1/webhook_endpoints/whe_1/enable", _endpoint())
    for held in ("all", "none", "2h"):
        assert api.run("endpoints", "enable", "whe_1", "--held", held).exit_code == 0
    since = {"held": "since", "since": "2026-11-21T10:00:00.000Z"}
    assert api.sent("POST /v1/webhook_endpoints/whe_1/enable") == [{"held": "all"}, {"held": "none"}, since]


def test_a_test_event_shows_the_response() -> None:
    """`endpoints test` waits for the first attempt and fails if the attempt failed."""
    api = FakeApi().on("POST /v1/webhook_endpoints/whe_1/test", _delivery("pending"))
    api.on("GET /v1/deliveries/dlv_1", _delivery("pending"), _delivery("retrying", _attempt(1)))
    result = api.run("endpoints", "test", "whe_1")
    assert result.exit_code == 1
    assert "503 http_status" in result.stdout
    assert len(api.slept) == 2


def test_every_command_has_help_and_the_shared_options() -> None:
    """Each command has a help text and the option --json."""
    api = FakeApi()
    for words in (
        ("listen",), ("migrate",), ("doctor",), ("keys", "create"), ("keys", "roll"), ("endpoints", "rotate-secret"), ("events", "send"),
        ("deliveries", "show"), ("dead-letters", "replay"), ("replays", "resume"),
    ):  # fmt: skip
        result = api.run(*words, "--help")
        assert result.exit_code == 0
        assert "--json" in result.stdout


def test_follow_starts_now() -> None:
    """--follow starts at the present and continues from the cursor of each response, until Ctrl-C."""
    event = {
        "id": "evt_1",
        "type": "order.paid",
        "timestamp": datetime(2026, 11, 21, tzinfo=UTC).isoformat(),
        "data": {"a": 1},
    }
    api = FakeApi().on("GET /v1/events", page(cursor="c0"), page(event, cursor="c1"), page(), KeyboardInterrupt())
    result = api.run("events", "list", "--follow", "--type", "order.*", "--json")
    assert result.exit_code == 0
    assert [json.loads(line) for line in result.stdout.splitlines()] == [event]
    queries = [dict(request.url.params) for request in api.requests]
    assert queries[0] == {"type": "order.*", "start": "now"}
    assert [it.get("cursor") for it in queries] == [None, "c0", "c1", "c1"]
