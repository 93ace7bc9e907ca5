"""The rate of an account to one person: the generic cell rate algorithm (GCRA), with one time per person.

Providers limit how often a sender writes to one person. Meta takes one message each 6 s, and 45 at once after a pause.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

MAX_SLACK: Final = timedelta(seconds=0.25)
"""Turns are so much later than they could be, at most an eighth of the interval: a message that is sent a little after its turn
must not take the next one's, who would wait for a whole round again."""


@dataclass(frozen=True, slots=True)
class RecipientRate:
    """A person gets a message each `interval`, and up to `burst` of them at once after a pause."""

    interval: timedelta
    burst: int


@dataclass(slots=True)
class RecipientPace:
    """The state of a rate for one person. `used_until` is when all that was sent has been made up for (GCRA's arrival time).

    `queued_until`: when the last message that waits has its turn.
    """

    rate: RecipientRate
    used_until: datetime
    queued_until: datetime

    def free_at(self, now: datetime) -> datetime:
        """Return when a message that asks now may be sent. Messages that cannot be sent now wait one after the other."""
        free_at = self.used_until - self.rate.interval * (self.rate.burst - 1)
        if free_at <= now:
            return now
        return max(free_at, self.queued_until + self.rate.interval) + min(MAX_SLACK, self.rate.interval / 8)

    def use(self, now: datetime) -> None:
        """Note a message that is sent now."""
        self.used_until = max(self.used_until, now) + self.rate.interval

    def queue(self, until: datetime) -> None:
        """Note a message that waits until this time, which `free_at` returned."""
        self.queued_until = max(self.queued_until, until)
