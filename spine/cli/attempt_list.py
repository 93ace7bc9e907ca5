"""The attempts of a delivery as lines to be read from top to bottom."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from spine.cli.times import between_s, clock, span

_BODY_WIDTH: Final = 160


def timeline(attempts: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Lines with their styles: when, how long after the attempt before, what came of it, what came next."""
    ended_at = None
    series = 0
    for attempt in attempts:
        if attempt["series"] != series:
            series = attempt["series"]
            yield ("first series" if series == 1 else f"series {series}, a replay"), "bold"
        waited = "" if ended_at is None else f"  {span(max(0.0, between_s(ended_at, attempt['started_at'])))} later"
        ended_at = attempt["ended_at"]
        failed = attempt["error"] is not None
        answer = attempt["status_code"] or ""
        outcome = f"{answer} {attempt['error']}".strip() if failed else f"{answer} delivered".strip()
        took = span(between_s(attempt["started_at"], attempt["ended_at"]))
        style = "red" if failed else "green"
        yield f"  #{attempt['number']}  {clock(attempt['started_at'])}{waited}  {outcome}  in {took}", style
        yield from _after(attempt)


def _after(attempt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    body = " ".join((attempt["response_body"] or "").split())
    if body:
        yield f"      {body if len(body) <= _BODY_WIDTH else body[: _BODY_WIDTH - 1] + '…'}", "dim"
    if attempt.get("retry_after_s") is not None:
        yield f"      asked us to wait {span(attempt['retry_after_s'])}", "dim"
    if attempt["next_attempt_at"] is not None:
        wait = span(max(0.0, between_s(attempt["ended_at"], attempt["next_attempt_at"])))
        yield f"      next attempt in {wait}, at {clock(attempt['next_attempt_at'])}", "dim"
