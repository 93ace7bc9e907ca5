"""The command line against a whole installation, and the commands of the operating guide, run unchanged."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from dotenv import dotenv_values
from standardwebhooks import Webhook
from typer.testing import CliRunner, Result

from spine.cli.app import app
from spine.cli.command import Environment
from tests.e2e.installation import ROOT, Up, until, up

SPINE = (sys.executable, "-m", "spine.cli")
_BLOCK = re.compile(r"^```sh\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


class Receiver:
    """Responds to every call with `status`, and records the calls."""

    def __init__(self) -> None:
        self.status = 200
        self.calls: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks"
        Thread(target=self.server.serve_forever, daemon=True).start()


class Shell:
    """A second terminal: `spine` with the settings that `make up` wrote, in the workspace of a new organisation."""

    def __init__(self, installation: Up) -> None:
        kept = {name: value or "" for name, value in dotenv_values(installation.directory / "environment").items()}
        # Set in the environment, so that the servers of a developer's .env are not used.
        self.environ = {**os.environ, **kept, "SPINE_DATA_DIR": str(installation.directory), "PYTHONPATH": str(ROOT)}
        created = self.json("keys", "create", "--org", "Acme", "--email", "ops@acme.example.com")
        self.workspace_id: str = created["test"]["workspace_id"]
        self.environ["SPINE_API_KEY"] = created["test"]["api_key"]

    def run(self, *words: str) -> Result:
        """Run `spine` in this process."""
        return CliRunner().invoke(app, words, obj=Environment(environ=self.environ), catch_exceptions=False)

    def json(self, *words: str) -> Any:
        """Run `spine … --json` and return its document."""
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `spine` as a process that receives Ctrl-C even if the tests run in the background of a shell."""
        return subprocess.Popen(
            [*SPINE, *words],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # one plain call
        )

    def dead_letter(self, endpoint_id: str, receiver: Receiver) -> str:
        """Create a delivery that is dead because of a 410, and enable the endpoint again. Returns the event's id."""
        before = len(self.json("dead-letters", "list")["data"])
        receiver.status = 410
        event: str = self.json("events", "send", "order.paid")["id"]
        until(lambda: len(self.json("dead-letters", "list")["data"]) > before, 20)
        receiver.status = 200
        self.json("endpoints", "enable", endpoint_id)
        return event


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One installation for this module, started by the command line."""
    with up(tmp_path_factory.mktemp("cli") / "data", (*SPINE, "up")) as running:
        yield running


@pytest.fixture
def shell(installation: Up) -> Shell:
    """A terminal with a new organisation for one test."""
    return Shell(installation)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on this machine."""
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_second_terminal_finds_the_installation(installation: Up) -> None:
    """`spine` needs only the data directory: `make up` wrote key and port there."""
    mine = Shell(installation).environ
    bare = {name: value for name, value in mine.items() if not name.startswith(("SPINE_API", "SPINE_HTTP"))}
    for words in (("events", "list"), ("events", "list", "--live")):
        done = subprocess.run([*SPINE, *words], env=bare, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


def test_doctor_reports_failures(installation: Up, shell: Shell, receiver: Receiver) -> None:
    """A running installation has no failure. Another encryption key, a wrong Redis and a wrong port are failures."""
    shell.json("endpoints", "create", receiver.url)
    well = subprocess.run([*SPINE, "doctor", "--json"], env=shell.environ, capture_output=True, text=True, check=False)
    findings = {finding["part"]: finding for finding in json.loads(well.stdout)["findings"]}
    assert [finding for finding in findings.values() if finding["level"] == "fail"] == []
    assert well.returncode == 0
    assert findings["logins"]["level"] == "ok"
    assert {"migrations", "row security", "workers", "sealed secrets", "redis", "api"} <= set(findings)
    changed = {"SPINE_ENCRYPTION_KEY": "A" * 42 + "E=", "SPINE_HTTP_PORT": "1", "REDIS_URL": "redis://127.0.0.1:1"}
    ill = subprocess.run(
        [*SPINE, "doctor", "--json"], env=shell.environ | changed, capture_output=True, text=True, check=False
    )
    assert ill.returncode == 1
    failed = [finding for finding in json.loads(ill.stdout)["findings"] if finding["level"] == "fail"]
    assert {finding["part"] for finding in failed} == {"sealed secrets", "redis", "api"}
    assert all(finding["mend"] for finding in failed)


def test_secrets_are_sealed_again_after_a_rotation(shell: Shell, receiver: Receiver) -> None:
    """With a new first key `secrets reseal` seals everything once, and then the old key is not needed to deliver or roll back."""
    shell.json("endpoints", "create", receiver.url, "--header", "X-Token: t")
    old_key, new_key = shell.environ["SPINE_ENCRYPTION_KEY"], base64.b64encode(os.urandom(32)).decode()
    shell.environ["SPINE_ENCRYPTION_KEY"] = f"{new_key},{old_key}"
    first = shell.json("secrets", "reseal")
    assert (first["resealed"] >= 2, first["unreadable"]) == (True, 0)
    assert shell.json("secrets", "reseal") == {"resealed": 0, "unreadable": 0}
    shell.environ["SPINE_ENCRYPTION_KEY"] = old_key  # the processes run with this key, which opens none of them now
    unreadable = shell.run("secrets", "reseal", "--json")
    assert (unreadable.exit_code, json.loads(unreadable.stdout)) == (
        1,
        {"resealed": 0, "unreadable": first["resealed"]},
    )
    shell.environ["SPINE_ENCRYPTION_KEY"] = f"{old_key},{new_key}"
    assert shell.json("secrets", "reseal") == first
    shell.json("events", "send", "order.paid")
    until(lambda: receiver.calls, 20)
    assert receiver.calls[0][0]["x-token"] == "t"


def test_life_of_a_key(shell: Shell) -> None:
    """Keys are created over the API and in the database, for one workspace and one environment, and valid until revoked."""
    narrow = shell.json("keys", "create", "--name", "billing", "--scopes", "events:write")
    assert shell.run("events", "send", "order.paid", "--key", narrow["api_key"]).exit_code == 0
    refused = shell.run("keys", "list", "--key", narrow["api_key"])
    assert (refused.exit_code, "scope_missing" in refused.stderr) == (1, True)
    lost = shell.json("keys", "create", "--workspace", shell.workspace_id, "--name", "lost")
    assert [key["name"] for key in shell.json("keys", "list", "--key", lost["api_key"])["data"]][:2] == [
        "lost",
        "billing",
    ]
    types = [event["type"] for event in shell.json("events", "list")["data"]]
    assert types.count("api_key.created") == 2
    shell.json("keys", "revoke", narrow["id"])
    until(lambda: shell.run("events", "send", "order.paid", "--key", narrow["api_key"]).exit_code == 1, 10)


def test_a_key_of_a_new_organisation_has_the_scopes_asked_for(shell: Shell) -> None:
    """--scopes applies to both keys of a new organisation."""
    created = shell.json("keys", "create", "--org", "B", "--email", "b@acme.example.com", "--scopes", "events:write")
    for env in ("test", "live"):
        key = created[env]["api_key"]
        assert key.startswith(f"sk_{env}_")
        assert shell.run("events", "send", "order.paid", "--key", key).exit_code == 0
        assert shell.run("events", "list", "--key", key).exit_code == 1


def test_dead_letters_are_replayed(shell: Shell, receiver: Receiver) -> None:
    """A dead letter is listed with its reason, replayed by filter, and delivered with the same id and bytes."""
    endpoint = shell.json("endpoints", "create", receiver.url, "--events", "order.*")["id"]
    event = shell.dead_letter(endpoint, receiver)
    letter = shell.json("dead-letters", "list", "--endpoint", endpoint, "--type", "order.*", "--since", "1h")["data"][0]
    assert (letter["event_id"], letter["reason"], letter["last_status_code"]) == (event, "endpoint_gone", 410)
    result = shell.run("dead-letters", "replay", "--endpoint", endpoint, "--yes")
    assert result.exit_code == 0, result.output
    assert "1 delivered, 0 failed, of 1" in result.stdout
    (first, body), (second, again) = receiver.calls
    assert (first["webhook-id"], body) == (second["webhook-id"], again)
    shown = shell.run("deliveries", "show", letter["delivery_id"]).stdout
    assert shown.index("410 endpoint_gone") < shown.index("series 2, a replay") < shown.index("200 delivered")
    assert shell.json("dead-letters", "list")["data"] == []


def test_ctrl_c_pauses_a_replay_which_can_be_resumed(shell: Shell, receiver: Receiver) -> None:
    """Ctrl-C pauses the replay and prints the command that resumes it."""
    endpoint = shell.json("endpoints", "create", receiver.url, "--events", "order.*")["id"]
    for _ in range(3):
        shell.dead_letter(endpoint, receiver)
    running = shell.start("dead-letters", "replay", "--yes", "--rate", "0.5")
    # After the first of three deliveries the command polls the progress; the next delivery is two seconds later.
    until(lambda: len(receiver.calls) > 3)
    until(lambda: shell.json("replays", "list")["data"][0]["progress"]["done"])
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130, said
    replay = shell.json("replays", "list")["data"][0]
    assert (replay["status"], replay["id"] in said) == ("paused", True)
    assert shell.run("replays", "resume", replay["id"], "--watch").exit_code == 0
    assert shell.json("replays", "show", replay["id"])["progress"] == {"total": 3, "done": 3, "failed": 0}


def test_listen_forwards_signed_events(shell: Shell, receiver: Receiver, installation: Up) -> None:
    """`listen` forwards new events to a local server, where the standardwebhooks package verifies them. Ctrl-C ends it."""
    shell.json("events", "send", "order.before")
    listening = shell.start("listen", "--forward-to", receiver.url, "--events", "order.*", "--json")
    assert listening.stderr is not None
    while "listening to order.*" not in listening.stderr.readline():
        assert listening.poll() is None
    shell.json("events", "send", "payment.settled")
    sent = shell.json("events", "send", "order.paid", '{"name": "Zoë", "total": 4.20, "at": null}')
    assert listening.stdout is not None
    line = listening.stdout.readline()  # printed after the response
    listening.send_signal(signal.SIGINT)
    more, said = listening.communicate(timeout=30)
    assert (listening.returncode, more, said) == (0, "", f"stopped: 1 received, 1 taken by {receiver.url}\n")
    ((headers, body),) = receiver.calls
    secret = json.loads((installation.directory / "listen.json").read_text())["secret"]
    verified: Any = Webhook(secret).verify(body, headers)
    assert verified == {name: value for name, value in sent.items() if name not in ("object", "created_at")}
    assert json.loads(line)["forwarded"]["status_code"] == 200


@pytest.mark.timeout(180)
def test_the_operating_guide_works_as_printed(shell: Shell, receiver: Receiver, tmp_path: Path) -> None:
    """Every command block of docs/operating.md runs without an error."""
    endpoint = shell.json("endpoints", "create", receiver.url, "--events", "order.*")["id"]
    event = shell.dead_letter(endpoint, receiver)
    letter = shell.json("dead-letters", "list")["data"][0]["delivery_id"]
    assert shell.run("dead-letters", "replay", "--yes").exit_code == 0
    ids = {
        "ENDPOINT": endpoint,
        "EVENT": event,
        "DELIVERY": letter,
        "REPLAY": shell.json("replays", "list")["data"][0]["id"],
        "KEY": shell.json("keys", "create", "--name", "old")["id"],
    }
    program = tmp_path / "spine"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m spine.cli "$@"\n')
    program.chmod(0o755)
    environ = shell.environ | ids | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    blocks = _BLOCK.findall((ROOT / "docs/operating.md").read_text())
    assert len(blocks) > 5
    script = "set -eux\n" + "\n".join(blocks)
    done = subprocess.run(["sh", "-c", script], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
