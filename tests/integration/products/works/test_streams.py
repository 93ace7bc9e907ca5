"""Live queues: the queue at once and again after each change, for as long as the key and the server live (W-05)."""

import asyncio
import contextlib
import json
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api import TLS, Api, serve
from tests.database import owner_connection
from tests.delivery_engine import KEY
from tests.works_client import Works

WAIT_S = 60.0
"""Longer than anything here takes. Only a test that fails waits so long."""


class Stream:
    """A stream that a thread reads."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.lines: list[str] = []
        self.ended = threading.Event()
        self._states: queue.Queue[dict[str, Any]] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(httpx.HTTPError, httpx.StreamError):
            for line in self.answer.iter_lines():
                self.lines.append(line)
                if line.startswith("data: "):
                    self._states.put(json.loads(line.removeprefix("data: ")))
        self.ended.set()

    def next(self) -> list[str]:
        """Wait for the next state of the queue. Returns the titles of its tasks."""
        return [task["title"] for task in self._states.get(timeout=WAIT_S)["data"]]

    def until(self, titles: list[str]) -> None:
        """Wait for a state with these titles; states before it may be skipped."""
        while self.next() != titles:
            pass

    @property
    def is_quiet(self) -> bool:
        """True if no state has come that was not looked at."""
        return self._states.empty()

    def leave(self) -> None:
        """End the connection. To close it is not enough: the thread that reads keeps it open until something comes."""
        with contextlib.suppress(OSError):  # the server has ended it
            self.answer.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._thread.join()


@contextlib.contextmanager
def streaming(url: str, key: str, user_id: str) -> Iterator[Stream]:
    """Follow a user's queue."""
    with (
        httpx.Client(base_url=url, trust_env=False, timeout=WAIT_S, verify=TLS) as http,
        http.stream("GET", f"/works/v1/queues/{user_id}/stream", headers={"Authorization": f"Bearer {key}"}) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        stream = Stream(answer)
        try:
            yield stream
        finally:
            stream.leave()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stream_follows_its_queue(works: Works) -> None:
    """The queue comes at once, and again after each change of it: arrival, change, completion, reassignment (W-05)."""
    project_id, user_id, other = works.project(), works.user(), works.user("Ravi")
    first = works.task(project_id, assignee_id=user_id, title="Paint")
    with (
        streaming(works.api.url, works.account.key, user_id) as stream,
        streaming(works.api.url, works.account.key, other) as others,
    ):
        assert stream.answer.headers["content-type"].startswith("text/event-stream")
        assert stream.answer.headers["cache-control"] == "no-cache"
        assert stream.next() == ["Paint"]
        assert others.next() == []
        second = works.task(project_id, assignee_id=user_id, title="Clean")
        assert stream.next() == ["Paint", "Clean"]
        works.patch(f"tasks/{first}", {"title": "Paint twice"})
        assert stream.next() == ["Paint twice", "Clean"]
        works.act(f"tasks/{first}/complete")
        assert stream.next() == ["Clean"]
        works.act(f"tasks/{second}/assign", {"assignee_id": other})
        assert stream.next() == []
        assert others.next() == ["Clean"]
        assert stream.is_quiet
    assert "retry: 2000" in stream.lines
    numbers = [int(line.removeprefix("id: ")) for line in stream.lines if line.startswith("id: ")]
    assert numbers == sorted(set(numbers))
    assert {line for line in stream.lines if line.startswith("event: ")} == {"event: queue"}


def test_many_streams_cost_one_query_a_look(works: Works) -> None:
    """Ten streams hold no connection of the database between looks; a change is read once for all streams of a queue."""
    project_id, user_id = works.project(), works.user()
    pool = works.api.app.state.platform.pool
    engine = works.api.app.state.platform.engine
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(streaming(works.api.url, works.account.key, user_id)) for _ in range(10)]
        for stream in streams:
            assert stream.next() == []
        wait_until(lambda: pool.get_size() == pool.get_idle_size() and engine.pool.checkedout() == 0)
        works.task(project_id, assignee_id=user_id, title="Paint")
        for stream in streams:
            assert stream.next() == ["Paint"]
    live = works.api.app.state.live_queues
    wait_until(lambda: not live._followed and not live._streams and live._looking is None)


def test_streams_are_bounded(database: str, redis_url: str) -> None:
    """A workspace has so many streams in a process, and all together have so many; further ones are 429 until one ends."""
    limits = {"SPINE_MAX_STREAMS_PER_WORKSPACE": "2", "SPINE_MAX_STREAMS": "3"}
    with serve(database, redis_url, **limits) as api, contextlib.ExitStack() as stack:
        one, two = api.sign_up().test, api.sign_up().test
        users = {}
        for account in (one, two):
            http = stack.enter_context(account.client())
            users[account.key] = Works(http, api, account).user()

        def follow(key: str) -> Any:
            return stack.enter_context(streaming(api.url, key, users[key]))

        def refused(key: str) -> bool:
            headers = {"Authorization": f"Bearer {key}"}
            with httpx.stream(
                "GET", f"{api.url}/works/v1/queues/{users[key]}/stream", headers=headers, verify=TLS
            ) as answer:
                if answer.status_code == 200:
                    return False
                problem = json.loads(answer.read())
            assert (answer.status_code, problem["code"]) == (429, "too_many_streams")
            assert int(answer.headers["retry-after"]) > 0
            return True

        first = follow(one.key)
        follow(one.key).next()
        assert refused(one.key)
        follow(two.key)
        assert refused(two.key)
        first.leave()
        wait_until(lambda: not refused(one.key))


@pytest.mark.parametrize("end", ["revoked", "expired", "scope lost"])
def test_a_stream_ends_with_its_key(works: Works, end: str) -> None:
    """Within seconds of its key's end a stream ends, and it sends nothing that happens later."""
    body = {"name": "reader", "scopes": ["works:read"]}
    made = works.http.post("/v1/api_keys", json=body).json()
    project_id, user_id = works.project(), works.user()
    with streaming(works.api.url, made["api_key"], user_id) as stream:
        assert stream.next() == []
        if end == "revoked":
            assert works.http.post(f"/v1/api_keys/{made['id']}/revoke").status_code == 200
        else:
            column = "expires_at = now()" if end == "expired" else "scopes = '{users:read}'"
            _as_owner(works.api, f"UPDATE spine.api_keys SET {column} WHERE id = '{made['id']}'")
        assert stream.ended.wait(WAIT_S)
        works.task(project_id, assignee_id=user_id)
        assert stream.is_quiet


def _as_owner(api: Api, statement: str) -> None:
    async def run() -> None:
        async with owner_connection(api) as owner:
            await owner.execute(statement)

    asyncio.run(run())


def test_a_stream_outlives_a_database_that_is_away(works: Works) -> None:
    """When connections of the database die, a stream goes on, and sends what changed."""
    project_id, user_id = works.project(), works.user()
    with streaming(works.api.url, works.account.key, user_id) as stream:
        assert stream.next() == []
        kill = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'spine api' AND datname = current_database()"
        )
        for _ in range(3):
            _as_owner(works.api, kill)
        wait_until(lambda: works.http.get(f"/works/v1/projects/{project_id}").status_code == 200)
        works.task(project_id, assignee_id=user_id, title="Paint")
        stream.until(["Paint"])


def test_a_client_that_does_not_read_is_cut(database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose client reads nothing ends when its answers have waited too long, and makes room; others go on."""
    monkeypatch.setattr("products.works.live_queues.LOOK_S", 0.02)  # many changes fill the buffers between the two
    limits = {"SPINE_ANSWER_TIMEOUT_S": "1", "SPINE_MAX_STREAMS_PER_WORKSPACE": "2"}
    with serve(database, redis_url, **limits) as api, api.sign_up().test.client() as http:
        key = http.headers["authorization"].removeprefix("Bearer ")
        works = Works(http, api, None)  # type: ignore[arg-type]  # no events are read here
        project_id, user_id = works.project(), works.user()
        for _ in range(100):
            task_id = works.task(project_id, assignee_id=user_id, title="x" * 500)
        live = api.app.state.live_queues
        address = urlsplit(api.url)
        with socket.socket() as deaf, streaming(api.url, key, user_id) as reader:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect((address.hostname, address.port))
            head = f"GET /works/v1/queues/{user_id}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
            deaf.sendall(head.encode())
            wait_until(lambda: live._streams.total() == 2)
            number = 0
            while live._streams.total() == 2:
                number += 1
                works.patch(f"tasks/{task_id}", {"title": f"change {number}"})
                reader.next()
                assert number < 1000
            works.patch(f"tasks/{task_id}", {"title": "the last"})
            while reader.next()[-1] != "the last":
                pass


def test_a_stopping_server_ends_its_streams(database: str, redis_url: str, tmp_path: Any) -> None:
    """At SIGTERM streams end in order, their chunked answers complete, and the process ends without having to cancel anything."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "DATABASE_URL": database, "REDIS_URL": redis_url, "SPINE_ENCRYPTION_KEY": KEY, "SPINE_HTTP_PORT": str(port),
        "SPINE_SIGNUP": "open", "SPINE_SIGNUP_CONFIRMATION": "none", "PATH": "/usr/bin:/bin",
    }  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "products.app"], env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(f"{url}/livez"))
        api = Api(url, None, database, redis_url)  # type: ignore[arg-type]  # it runs in another process
        account = api.sign_up().test
        with account.client() as http:
            user_id = Works(http, api, account).user()
        with streaming(url, account.key, user_id) as stream:
            assert stream.next() == []
            process.send_signal(signal.SIGTERM)
            assert stream.ended.wait(WAIT_S)
            assert process.wait(WAIT_S) == -signal.SIGTERM  # uvicorn raises its signal again after it has shut down
            assert stream.answer.is_stream_consumed
    finally:
        process.kill()
        process.wait()
    assert "graceful" not in (tmp_path / "log").read_text()  # uvicorn's word when it had to cancel


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, trust_env=False).status_code == 200
    return False
