"""A fake API with scripted responses for unit tests of the command line: no socket, no sleep, a fixed clock."""

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
_COMMAND: Final = get_command(app)  # `invoke` of the runner would build it for every call


def page(*items: Mapping[str, Any], more: bool = False, cursor: str | None = None) -> dict[str, Any]:
    """Return the response of a list."""
    return {"data": list(items), "has_more": more, "next_cursor": cursor}


def problem(status: int, code: str, detail: str, **more: Any) -> tuple[int, dict[str, Any]]:
    """Return an error response."""
    return status, {"status": status, "code": code, "detail": detail, "request_id": "req_1", **more}


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The exit code and output of a command."""

    exit_code: str | int | None
    stdout: str
    stderr: str
    output: str


class FakeApi:
    """Returns the scripted responses of each `METHOD path` in order and repeats the last one. Records the requests."""

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
        """Add responses of a route: a body, a (status, body), or an exception to raise (also KeyboardInterrupt)."""
        self._answers[route] += answers
        return self

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        waiting = self._answers[f"{request.method} {request.url.path}"]
        assert waiting, f"unexpected request: {request.method} {request.url}"
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(answer, BaseException):
            raise answer
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        return httpx.Response(status, json=body)

    def run(self, *arguments: str, input: str | None = None) -> CommandResult:
        """Run `spine` with these arguments."""
        with CliRunner().isolation(input=input) as streams:
            with pytest.raises(SystemExit) as left:
                _COMMAND.main(arguments, prog_name="spine", obj=self.environment)
            sys.stdout.flush()
            sys.stderr.flush()
            outputs = [stream.getvalue().decode() for stream in streams]
        return CommandResult(left.value.code, *outputs)

    def sent(self, route: str) -> Sequence[Any]:
        """Return the bodies of the requests to a route."""
        return [
            json.loads(request.content)
            for request in self.requests
            if f"{request.method} {request.url.path}" == route and request.content
        ]
