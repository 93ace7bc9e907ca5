"""The one way a command fails: a sentence for people, a document for machines, an exit code for scripts."""

from typing import Any

FAILED = 1
"""Refused, broken or not there."""
MISUSED = 2
"""The command line makes no sense; also what a mistyped option gives."""
INTERRUPTED = 130


class Failure(Exception):
    """A command cannot go on. `problem` is the API's own document where there is one."""

    def __init__(self, detail: str, *, exit_code: int = FAILED, problem: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.exit_code = exit_code
        self.problem = problem or {"code": "misused" if exit_code == MISUSED else "failed", "detail": detail}

    @property
    def status(self) -> int:
        """The HTTP status behind it; 0 where it is none of the API's."""
        return int(self.problem.get("status", 0))
