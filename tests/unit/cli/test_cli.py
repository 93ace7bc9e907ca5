"""The command line against an API that answers from a table: arguments, pictures, errors, exit codes."""

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
def test_times_are_ago_or_iso(text: str, expected: str) -> None:
    """A time is so long ago, or ISO 8601, in UTC unless it says otherwise; the API gets RFC 3339 in UTC."""
    assert parse_time(text, NOW) == expected


@pytest.mark.parametrize("text", ["yesterday", "", "2x", "-2h", "2026-13-01"])
def test_other_times_are_refused(text: str) -> None:
    """What is no time is refused with the forms that are."""
    with pytest.raises(typer.BadParameter, match="2h for two hours ago"):
        parse_time(text, NOW)


def test_spans_both_ways() -> None:
    """Spans are read in seconds and shown in the two or three units that matter."""
    assert (parse_duration_s("7d"), parse_duration_s("0s")) == (604_800, 0)
    assert [format_duration(s) for s in (0.0123, 4, 65, 7200, 90061)] == [
        "12 ms",
        "4 s",
        "1 m 5 s",
        "2 h",
        "1 d 1 h 1 m 1 s",
    ]


def test_where_the_api_is() -> None:
    """--url goes before SPINE_URL, and that before this machine's own port; a host of all addresses is reached at loopback."""
    environ = {"SPINE_URL": "https://spine.example.com/", "SPINE_HTTP_PORT": "9000"}
    assert api_url(environ, "http://other:1") == "http://other:1"
    assert api_url(environ, None) == "https://spine.example.com"
    assert api_url({"SPINE_HTTP_PORT": "9000", "SPINE_HTTP_HOST": "0.0.0.0"}, None) == "http://127.0.0.1:9000"
    assert api_url({"SPINE_HTTP_HOST": "::1"}, None) == "http://[::1]:8080"
    for wrong in ("spine.example.com", "http://", "http://host:70000", "ftp://host"):
        with pytest.raises(Failure, match="no address"):
            api_url({}, wrong)


def test_which_key(tmp_path: Path) -> None:
    """--key goes before SPINE_API_KEY, and that before make up's own; --live takes the live one and no other."""
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


def test_up_does_not_read_what_it_wrote(tmp_path: Path) -> None:
    """Every command finds the installation by what `make up` wrote of it, but for `up`, which starts its own servers anew."""
    own = tmp_path / "environment"
    own.write_text("DATABASE_URL=postgresql://own")
    environ = {"SPINE_DATA_DIR": str(tmp_path)}
    assert own in settings_files(environ, ["doctor"])
    assert own not in settings_files(environ, ["up"])
    assert own not in settings_files({"SPINE_DATA_DIR": str(tmp_path / "other")}, ["doctor"])


def test_a_problem_is_told_and_fails() -> None:
    """An error answer ends with exit code 1, its detail, its code and the field at fault on stderr, nothing on stdout."""
    api = FakeApi().on("GET /v1/deliveries/dlv_x", problem(422, "validation_failed", "that is wrong", param="url"))
    told = api.run("deliveries", "show", "dlv_x")
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr == "error: that is wrong (validation_failed, field url)\n"
    machine = api.run("deliveries", "show", "dlv_x", "--json")
    assert machine.exit_code == 1
    assert json.loads(machine.stderr)["code"] == "validation_failed"


def test_an_absent_api_is_told_with_its_mend() -> None:
    """When nothing answers, the sentence names the address and how to start or choose another."""
    told = FakeApi().on("GET /v1/replays/rpl_1", httpx.ConnectError("refused")).run("replays", "show", "rpl_1")
    assert told.exit_code == 1
    for part in ("http://127.0.0.1:8080", "refused", "make up", "--url"):
        assert part in told.stderr


def test_another_server_is_told_from_ours() -> None:
    """An answer that is no document of ours is not taken for one."""
    told = FakeApi().on("GET /v1/replays/rpl_1", (404, [])).run("replays", "show", "rpl_1")
    assert told.exit_code == 1
    assert "no Spine API" in told.stderr


def test_a_busy_api_is_asked_again_with_the_same_key() -> None:
    """A change that was answered 503 is tried again under the same Idempotency-Key, so that it is made once."""
    api = FakeApi().on(
        "POST /v1/api_keys/key_1/revoke",
        problem(503, "unavailable", "in a moment"),
        {"id": "key_1", "name": "n", "status": "revoked"},
    )
    assert api.run("keys", "revoke", "key_1").exit_code == 0
    assert len(api.requests) == 2
    assert len({request.headers["Idempotency-Key"] for request in api.requests}) == 1
    assert api.requests[0].headers["Authorization"] == f"Bearer {api.environ['SPINE_API_KEY']}"


def test_misuse_is_code_2() -> None:
    """A command line that makes no sense ends with exit code 2 before anything is asked."""
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
        ("listen",),
        ("listen", "--forward-to", "localhost:3000"),
        ("frobnicate",),
    ):
        assert api.run(*words).exit_code == 2, words
    assert api.requests == []


def test_a_list_reads_as_many_pages_as_it_needs() -> None:
    """--limit counts items, not pages; what is left is said on stderr, and ids are never cut."""
    long_id = "dlv_" + "0" * 26
    api = FakeApi().on(
        "GET /v1/deliveries",
        page(*[_delivery() | {"id": long_id}] * 100, more=True, cursor="c1"),
        page(*[_delivery()] * 100, more=True, cursor="c2"),
    )
    told = api.run("deliveries", "list", "--limit", "150", "--status", "dead", "--endpoint", "whe_1")
    assert told.stdout.count("order.paid") == 150
    assert long_id in told.stdout
    assert "there are more" in told.stderr
    assert [dict(request.url.params) for request in api.requests] == [
        {"limit": "100", "status": "dead", "endpoint_id": "whe_1"},
        {"limit": "100", "status": "dead", "endpoint_id": "whe_1", "cursor": "c1"},
    ]


def test_json_is_the_answer_itself() -> None:
    """With --json stdout is one document, the API's own fields."""
    told = FakeApi().on("GET /v1/deliveries", page(_delivery())).run("deliveries", "list", "--json")
    assert json.loads(told.stdout) == {"data": [_delivery()], "has_more": False}


def test_an_empty_list_says_so() -> None:
    """An empty list is a sentence on stderr and an empty document for machines."""
    api = FakeApi().on("GET /v1/dead_letters", page())
    assert api.run("dead-letters", "list").stderr == "no dead letters\n"
    assert json.loads(api.run("dead-letters", "list", "--json").stdout)["data"] == []


def test_a_timeline_reads_from_top_to_bottom() -> None:
    """Attempts are shown in order with the wait before, the answer, its body and what comes next; replays begin a series."""
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


def test_a_receiver_cannot_steer_the_terminal() -> None:
    """Control characters in what a receiver answered are shown as text, not obeyed."""
    told = (
        FakeApi().on("GET /v1/deliveries/dlv_1", _delivery("retrying", _attempt(1))).run("deliveries", "show", "dlv_1")
    )
    assert told.exit_code == 0
    assert "\x1b" not in told.output
    assert plain("a\x1b[2Jb\r\x07") == "a\\x1b[2Jb\\r\\x07"


def test_dead_letters_are_counted_before_they_are_replayed() -> None:
    """A replay by filter asks for the count first, asks the operator, then starts with the very same filter."""
    api = FakeApi().on("POST /v1/replays", {"total": 3}, (201, _replay("running", 0)))
    api.on("GET /v1/replays/rpl_1", _replay("running", 1), _replay("done", 3))
    told = api.run(
        *("dead-letters", "replay", "--endpoint", "whe_1", "--type", "order.*", "--since", "2h", "--rate", "5"),
        input="y\n",
    )
    assert told.exit_code == 0, told.stderr
    assert "Replay 3 dead letters?" in told.stderr
    assert "3 delivered, 0 failed, of 3" in told.stdout
    wish = {"endpoint_id": "whe_1", "types": ["order.*"], "since": "2026-11-21T10:00:00.000Z", "status": "dead"}
    assert api.sent("POST /v1/replays") == [{"filter": wish, "dry_run": True}, {"filter": wish, "rate_per_s": 5.0}]


@pytest.mark.parametrize(("answer", "code"), [("n\n", 0), ("", 1)])
def test_nothing_starts_without_a_yes(answer: str, code: int) -> None:
    """No, and silence, start nothing."""
    api = FakeApi().on("POST /v1/replays", {"total": 3})
    told = api.run("dead-letters", "replay", input=answer)
    assert told.exit_code == code
    assert api.sent("POST /v1/replays") == [{"filter": {"status": "dead"}, "dry_run": True}]


def test_a_machine_says_yes_itself() -> None:
    """With --json nobody is asked: without --yes it fails, and for none chosen there is nothing to do."""
    api = FakeApi().on("POST /v1/replays", {"total": 3})
    assert api.run("dead-letters", "replay", "--json").exit_code == 2
    assert len(api.requests) == 1
    none = FakeApi().on("POST /v1/replays", {"total": 0}).run("dead-letters", "replay", "--json")
    assert (none.exit_code, json.loads(none.stdout)) == (0, {"total": 0})


def test_ctrl_c_pauses_and_says_how_to_go_on() -> None:
    """Ctrl-C on the progress pauses the replay, exits 130 and names the command that resumes it."""
    api = FakeApi().on("POST /v1/replays", {"total": 3}, (201, _replay("running", 0)))
    api.on("GET /v1/replays/rpl_1", _replay("running", 1), KeyboardInterrupt())
    api.on("POST /v1/replays/rpl_1/pause", _replay("paused", 1))
    told = api.run("dead-letters", "replay", "--yes")
    assert told.exit_code == 130
    assert "spine replays resume rpl_1" in told.stderr
    assert api.requests[-1].url.path == "/v1/replays/rpl_1/pause"


def test_a_replay_that_stands_still_is_explained() -> None:
    """Where nothing ends for a while, it is said once that deliveries are retried or held, and the watching goes on."""
    api = FakeApi().on("POST /v1/replays", {"total": 3}, (201, _replay("running", 0)))
    api.on("GET /v1/replays/rpl_1", *[_replay("running", 1)] * 90, _replay("done", 3))
    told = api.run("dead-letters", "replay", "--yes")
    assert told.exit_code == 0
    assert told.stderr.count("--status held") == 1


def test_failures_of_a_replay_fail_the_command() -> None:
    """A replay that ends with failures ends the command with exit code 1 and where to look."""
    api = FakeApi().on("POST /v1/replays", {"total": 3}, (201, _replay("running", 0)))
    api.on("GET /v1/replays/rpl_1", _replay("done", 2, failed=1))
    told = api.run("dead-letters", "replay", "--yes")
    assert told.exit_code == 1
    assert "1 of 3 failed" in told.stderr


def test_one_dead_letter_goes_without_a_count() -> None:
    """A single dead letter is replayed by its id, at once."""
    api = FakeApi().on("POST /v1/deliveries/dlv_1/replay", _delivery("pending"))
    assert api.run("dead-letters", "replay", "dlv_1").exit_code == 0
    assert len(api.requests) == 1


def _endpoint(**more: Any) -> dict[str, Any]:
    """An endpoint as the API answers it."""
    texts = dict.fromkeys(("url", "description", "signature", "disabled_reason", "rate_per_s"), "")
    return texts | {
        "id": "whe_1",
        "status": "enabled",
        "events": ["*"],
        "filter": None,
        "max_in_flight": 20,
        "created_at": NOW.isoformat(),
    } | more  # fmt: skip


def test_an_endpoint_is_made_with_its_filter() -> None:
    """--filter is JSON, sent as it is and shown as JSON; without it there is none."""
    api = FakeApi().on("POST /v1/webhook_endpoints", _endpoint(filter={"tier": "gold"}))
    told = api.run("endpoints", "create", "http://r", "--filter", '{"tier": "gold"}')
    assert (told.exit_code, '{"tier":"gold"}' in told.stdout) == (0, True)
    assert api.run("endpoints", "create", "http://r").exit_code == 0
    sent = api.sent("POST /v1/webhook_endpoints")
    assert (sent[0]["filter"], "filter" in sent[1]) == ({"tier": "gold"}, False)


def test_enable_says_what_becomes_of_the_held() -> None:
    """--held takes all, none, or a time since which they are delivered."""
    api = FakeApi().on("POST /v1/webhook_endpoints/whe_1/enable", _endpoint())
    for held in ("all", "none", "2h"):
        assert api.run("endpoints", "enable", "whe_1", "--held", held).exit_code == 0
    since = {"held": "since", "since": "2026-11-21T10:00:00.000Z"}
    assert api.sent("POST /v1/webhook_endpoints/whe_1/enable") == [{"held": "all"}, {"held": "none"}, since]


def test_a_test_event_shows_what_the_endpoint_answered() -> None:
    """`endpoints test` waits for the first attempt and fails where the endpoint did not take it."""
    api = FakeApi().on("POST /v1/webhook_endpoints/whe_1/test", _delivery("pending"))
    api.on("GET /v1/deliveries/dlv_1", _delivery("pending"), _delivery("retrying", _attempt(1)))
    told = api.run("endpoints", "test", "whe_1")
    assert told.exit_code == 1
    assert "503 http_status" in told.stdout
    assert len(api.slept) == 2


def test_every_command_has_help_and_the_shared_options() -> None:
    """Each command says what it does and takes --json."""
    api = FakeApi()
    for words in (
        ("listen",), ("migrate",), ("doctor",), ("keys", "create"), ("keys", "roll"), ("endpoints", "rotate-secret"), ("events", "send"),
        ("deliveries", "show"), ("dead-letters", "replay"), ("replays", "resume"),
    ):  # fmt: skip
        told = api.run(*words, "--help")
        assert told.exit_code == 0
        assert "--json" in told.stdout


def test_the_feed_of_events_is_followed_from_now_on() -> None:
    """--follow begins at the present and goes on from each answer's cursor, until Ctrl-C."""
    event = {
        "id": "evt_1",
        "type": "order.paid",
        "timestamp": datetime(2026, 11, 21, tzinfo=UTC).isoformat(),
        "data": {"a": 1},
    }
    api = FakeApi().on("GET /v1/events", page(cursor="c0"), page(event, cursor="c1"), page(), KeyboardInterrupt())
    told = api.run("events", "list", "--follow", "--type", "order.*", "--json")
    assert told.exit_code == 0
    assert [json.loads(line) for line in told.stdout.splitlines()] == [event]
    asked = [dict(request.url.params) for request in api.requests]
    assert asked[0] == {"type": "order.*", "start": "now"}
    assert [it.get("cursor") for it in asked] == [None, "c0", "c1", "c1"]
