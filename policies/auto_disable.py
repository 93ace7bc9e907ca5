"""Decides when an endpoint whose deliveries all fail is disabled automatically."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class AutoDisable:
    """The rule: disable after `after_s` seconds of failures without a success (webhooks.md, promise 4)."""

    after_s: int = 432_000


def failing_since(since: datetime | None, delivered: bool, ended_at: datetime) -> datetime | None:
    """Return since when all attempts have failed, including this one; None if this attempt succeeded."""
    if delivered:
        return None
    return ended_at if since is None else min(since, ended_at)


def should_disable(rule: AutoDisable, since: datetime | None, now: datetime) -> bool:
    """Return True if an endpoint that has failed since `since` must be disabled. Called after a failed attempt."""
    return since is not None and now - since >= timedelta(seconds=rule.after_s)
