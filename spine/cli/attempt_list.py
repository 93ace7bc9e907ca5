"""Format the attempts of a delivery as lines in the order of time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from spine.cli.times import elapsed_s, format_duration, format_time

_BODY_WIDTH: Final = 160


def format_attempts(attempts: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield lines and their styles: start, wait since the attempt before, outcome, duration, next attempt."""
    ended_at = None
    series = 0
    for attempt in attempts:
        if attempt["series"] != series:
            series = attempt["series"]
            yield ("first series" if series == 1 else f"series {series}, a replay"), "bold"
        waited = (
            ""
            if ended_at is None
            else f"  {format_duration(max(0.0, elapsed_s(ended_at, attempt['started_at'])))} later"
        )
        ended_at = attempt["ended_at"]
        failed = attempt["error"] is not None
        answer = attempt["status_code"] or ""
        outcome = f"{answer} {attempt['error']}".strip() if failed else f"{answer} delivered".strip()
        took = format_duration(elapsed_s(attempt["started_at"], attempt["ended_at"]))
        style = "red" if failed else "green"
        yield f"  #{attempt['number']}  {format_time(attempt['started_at'])}{waited}  {outcome}  in {took}", style
        yield from _details(attempt)


def _details(attempt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    body = " ".join((attempt["response_body"] or "").split())
    if body:
        yield f"      {body if len(body) <= _BODY_WIDTH else body[: _BODY_WIDTH - 1] + '…'}", "dim"
    if attempt.get("retry_after_s") is not None:
        yield f"      asked us to wait {format_duration(attempt['retry_after_s'])}", "dim"
    if attempt["next_attempt_at"] is not None:
        wait = format_duration(max(0.0, elapsed_s(attempt["ended_at"], attempt["next_attempt_at"])))
        yield f"      next attempt in {wait}, at {format_time(attempt['next_attempt_at'])}", "dim"
