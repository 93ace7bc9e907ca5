"""When an endpoint that only fails is disabled by itself."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class AutoDisable:
    """The rule as data: disable after `after_s` seconds of failures without one success (webhooks.md, promise 4)."""

    after_s: int = 432_000


def failing_since(since: datetime | None, delivered: bool, ended_at: datetime) -> datetime | None:
    """Since when the endpoint has only failed, after one more attempt; None while its last word is a success."""
    if delivered:
        return None
    return ended_at if since is None else min(since, ended_at)


def should_disable(rule: AutoDisable, since: datetime | None, now: datetime) -> bool:
    """Whether the endpoint, failing since `since`, is to be disabled. Asked when an attempt has just failed."""
    return since is not None and now - since >= timedelta(seconds=rule.after_s)
