"""The judgements of `spine doctor` on given observations. The end-to-end tests run it against real servers."""

import base64
import json
import sys
from io import StringIO
from pathlib import Path

import pytest

from spine.cli.doctor import api, callbacks, database, durability, machine, queue, redis, report, settings, tenancy
from spine.cli.doctor.finding import Finding, fail, ok, warn
from spine.cli.locations import ROOT
from spine.cli.output import Output

_GIB = 1024**3
_KEY = base64.b64encode(b"k" * 32).decode()


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (machine.python((3, 11, 2)), "ok"),
        (machine.python((3, 10, 9)), "fail"),
        (machine.disk(Path("/d"), 50 * _GIB, 100 * _GIB), "ok"),
        (machine.disk(Path("/d"), 4 * _GIB, 100 * _GIB), "warn"),
        (machine.disk(Path("/d"), _GIB // 2, 100 * _GIB), "fail"),
        (machine.open_files(65536, 700), "ok"),
        (machine.open_files(800, 700), "warn"),
        (machine.open_files(256, 700), "fail"),
        (machine.open_files(-1, 700), "ok"),
        (database.version(14), "fail"),
        (database.version(15), "ok"),
        (database.clock_skew(0.2), "ok"),
        (database.clock_skew(-5), "warn"),
        (database.clock_skew(60), "fail"),
        (database.revision("0003", "0003"), "ok"),
        (database.revision("0002", "0003"), "fail"),
        (database.revision("0004", "0003"), "fail"),
        (database.revision(None, "0003"), "fail"),
        (durability.judge("fsync", "off"), "fail"),
        (durability.judge("synchronous_commit", "off"), "fail"),
        (durability.judge("synchronous_commit", "local"), "ok"),
        (tenancy.roles({"spine_app": (False, True), "spine_worker": (False, True)}), "ok"),
        (tenancy.roles({"spine_app": (False, True)}), "fail"),
        (tenancy.roles({"spine_app": (True, True), "spine_worker": (False, True)}), "fail"),
        (tenancy.roles({"spine_app": (False, True), "spine_worker": (False, False)}), "fail"),
        (tenancy.owned([]), "ok"),
        (tenancy.owned(["table spine.events"]), "fail"),
        (tenancy.logins([]), "ok"),
        (tenancy.logins(["spine api as spine"]), "warn"),
        (tenancy.row_security([]), "ok"),
        (tenancy.row_security(["events"]), "fail"),
        (queue.workers(2, 0.5), "ok"),
        (queue.workers(0, 40), "fail"),
        (queue.workers(0, None), "fail"),
        (queue.worker_clocks(-0.02), "ok"),
        (queue.worker_clocks(-2.0), "warn"),
        (queue.worker_clocks(200.0), "fail"),
        (queue.overdue(None), "ok"),
        (queue.overdue(3), "ok"),
        (queue.overdue(60), "warn"),
        (queue.overdue(600), "fail"),
        (callbacks.callbacks([], None), "ok"),
        (callbacks.callbacks(["exotel", "twilio"], None), "warn"),
        (callbacks.callbacks(["twilio"], "http://api.example.com"), "warn"),
        (callbacks.callbacks(["twilio"], "https://api.example.com"), "ok"),
        (queue.long_work(3, 2000, 1, 0), "ok"),
        (queue.long_work(3, 2000, 1, 1), "warn"),
        (queue.results(0), "ok"),
        (queue.results(2), "warn"),
        (queue.outbox(0, None), "ok"),
        (queue.outbox(5, 60), "warn"),
        (queue.outbox(10_000, 600), "fail"),
        (queue.partitions("20261128", "20261121", "20261122"), "ok"),
        (queue.partitions("20261121", "20261121", "20261122"), "warn"),
        (queue.partitions("20261120", "20261121", "20261122"), "fail"),
        (queue.partitions(None, "20261121", "20261122"), "fail"),
        (redis.memory({"maxmemory": 0, "used_memory": 1}), "ok"),
        (redis.memory({"maxmemory": 100, "used_memory": 10, "maxmemory_policy": "noeviction"}), "ok"),
        (redis.memory({"maxmemory": 100, "used_memory": 95, "maxmemory_policy": "noeviction"}), "warn"),
        (redis.memory({"maxmemory": 100, "used_memory": 10, "maxmemory_policy": "allkeys-lru"}), "warn"),
        (redis.persistence({"aof_enabled": 1}), "ok"),
        (redis.persistence({"aof_enabled": 0}), "ok"),
        (redis.persistence({"rdb_last_bgsave_status": "err"}), "fail"),
        (api.ready("u", 200, {"status": "ok", "missing": []}), "ok"),
        (api.ready("u", 200, {"status": "ok", "missing": ["redis: away"]}), "warn"),
        (api.ready("u", 503, {"status": "unavailable", "missing": ["database: away"]}), "fail"),
        (api.ready("u", 200, None), "fail"),
        (api.unreachable("u", "refused", None), "fail"),
        (api.unreachable("u", "refused", "nginx (process 7)"), "fail"),
    ],
)
def test_judgements(finding: Finding, level: str) -> None:
    """Each observation has its level, and a finding that is not ok has a remedy."""
    assert finding.level == level
    assert bool(finding.remedy) == (level != "ok")


@pytest.mark.parametrize(
    ("text", "level"),
    [
        (_KEY, "ok"),
        (f"{_KEY}, {base64.b64encode(b'o' * 32).decode()}", "ok"),
        ("", "fail"),
        ("not base64", "fail"),
        (base64.b64encode(b"short").decode(), "fail"),
        (base64.b64encode(bytes(32)).decode(), "fail"),
    ],
)
def test_the_encryption_key(text: str, level: str) -> None:
    """An invalid key and the key of the example are failures. No finding contains the key."""
    _, finding = settings.encryption_key(text)
    assert finding.level == level
    assert _KEY not in finding.observed + finding.remedy


def test_settings_are_read_as_the_processes_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding about a missing or malformed setting has the name of the environment variable."""
    for name in ("DATABASE_URL", "REDIS_URL", "SPINE_ENCRYPTION_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPINE_HTTP_PORT", "eighty")
    monkeypatch.setenv("SPINE_EGRESS_ALLOW", "0.0.0.0/0")
    found = settings.Settings()
    findings = list(settings.check_settings(found))
    failures = " ".join(finding.observed for finding in findings if finding.level == "fail")
    for name in ("DATABASE_URL", "REDIS_URL", "SPINE_ENCRYPTION_KEY", "SPINE_HTTP_PORT", "0.0.0.0/0"):
        assert name in failures
    assert found.database is None
    assert found.work is not None


def test_open_signup_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signup that is open to other machines is a warning."""
    for name, value in {"SPINE_SIGNUP": "open", "SPINE_HTTP_HOST": "0.0.0.0", "SPINE_ENCRYPTION_KEY": _KEY}.items():
        monkeypatch.setenv(name, value)
    levels = {f.component: f.level for f in settings.check_settings(settings.Settings())}
    assert levels["signup"] == "warn"


def test_the_newest_revision_is_read_from_the_code() -> None:
    """The newest revision is the number of the last migration file."""
    files = sorted((ROOT / "spine/kernel/migrations/versions").glob("[0-9]*.py"))
    assert database.newest_revision() == files[-1].name.partition("_")[0]


def test_a_failure_fails_the_command_and_a_warning_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report returns True if there is a failure. With --json it is one document."""
    monkeypatch.setattr(sys, "stdout", StringIO())
    assert report.report(Output(as_json=False), [ok("a", "fine"), warn("b", "so so", "mend it")]) is False
    assert report.report(Output(as_json=False), [ok("a", "fine"), fail("b", "bad", "mend it")]) is True
    printed = StringIO()
    monkeypatch.setattr(sys, "stdout", printed)
    assert report.report(Output(as_json=True), [fail("b", "bad", "mend it")]) is True
    document = json.loads(printed.getvalue())
    assert document == {"ok": False, "findings": [{"level": "fail", "part": "b", "saw": "bad", "mend": "mend it"}]}
