"""The exception that ends a command: a sentence for people, a JSON document for programs, an exit code for scripts."""

from typing import Any

FAILED = 1
"""The request was refused, or the resource is broken or missing."""
MISUSED = 2
"""The command line is invalid. An unknown option has the same exit code."""
INTERRUPTED = 130


class Failure(Exception):
    """A command failed. `problem` is the error document of the API, if the API returned one."""

    def __init__(self, detail: str, *, exit_code: int = FAILED, problem: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.exit_code = exit_code
        self.problem = problem or {"code": "misused" if exit_code == MISUSED else "failed", "detail": detail}

    @property
    def status(self) -> int:
        """The HTTP status of the API's response; 0 if the error does not come from the API."""
        return int(self.problem.get("status", 0))
