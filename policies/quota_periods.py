"""The periods of quotas: days and months of UTC."""

from datetime import UTC, datetime, timedelta
from typing import Literal

Period = Literal["day", "month"]


def period_end(now: datetime, period: Period) -> datetime:
    """Return when the period that `now` lies in ends: the beginning of the next one."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return midnight + timedelta(days=1)
    return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
