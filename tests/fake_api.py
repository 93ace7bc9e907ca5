"""An API that answers from a table, for the command line's unit tests: no socket, no sleep, no other clock."""

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from spine.cli.app import app
from spine.cli.command import Environment

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
KEY = "sk_test_" + "0" * 38
_COMMAND: Final = get_command(app)  # the runner's own `invoke` would build it anew for every call


def page(*items: Mapping[str, Any], more: bool = False, cursor: str | None = None) -> dict[str, Any]:
    """A list's answer."""
    return {"data": list(items), "has_more": more, "next_cursor": cursor}


def problem(status: int, code: str, detail: str, **more: Any) -> tuple[int, dict[str, Any]]:
    """An error's answer."""
    return status, {"status": status, "code": code, "detail": detail, "request_id": "req_1", **more}


@dataclass(frozen=True, slots=True)
class Said:
    """What a command left behind."""

    exit_code: str | int | None
    stdout: str
    stderr: str
    output: str


class FakeApi:
    """Answers each `METHOD path` from its list, the last one for ever; remembers what it was asked."""

    def __init__(self, **environ: str) -> None:
        self.environ = {"SPINE_API_KEY": KEY, **environ}
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []
        self._answers: dict[str, list[Any]] = defaultdict(list)
        self.environment = Environment(
            environ=self.environ,
            transport=httpx.MockTransport(self._answer),
            sleep=self.slept.append,
            now=lambda: NOW,
        )

    def on(self, route: str, *answers: Any) -> "FakeApi":
        """What to answer there: a body, a (status, body), or an exception to raise (Ctrl-C among them)."""
        self._answers[route] += answers
        return self

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        waiting = self._answers[f"{request.method} {request.url.path}"]
        assert waiting, f"nobody expected {request.method} {request.url}"
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(answer, BaseException):
            raise answer
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        return httpx.Response(status, json=body)

    def run(self, *arguments: str, input: str | None = None) -> Said:
        """Say `spine …`."""
        with CliRunner().isolation(input=input) as streams:
            with pytest.raises(SystemExit) as left:
                _COMMAND.main(arguments, prog_name="spine", obj=self.environment)
            sys.stdout.flush()
            sys.stderr.flush()
            said = [stream.getvalue().decode() for stream in streams]
        return Said(left.value.code, *said)

    def sent(self, route: str) -> Sequence[Any]:
        """The bodies that came in there."""
        return [
            json.loads(request.content)
            for request in self.requests
            if f"{request.method} {request.url.path}" == route and request.content
        ]
