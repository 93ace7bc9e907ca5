"""The data that the delivery modules pass on: leased deliveries, limits of endpoints, and results."""

import time
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any

from policies.verdict import Verdict
from spine.kernel.http_client import HttpResponse


class Placement(IntEnum):
    """The state that a delivery gets next. `spine.webhooks.queries` uses the same numbers."""

    LEASED = 0
    """Leased to this process and put into its endpoint queue."""
    PARKED = 1
    """Not leased: waits in Postgres until the full endpoint queue has drained to half."""
    DUE = 2
    """Not leased: the next worker that claims due rows gets it."""
    HELD = 3
    """Not sent while its endpoint is disabled."""


@dataclass(slots=True, eq=False)
class DeliveryJob:
    """A delivery that this process has leased until `lease_ends_s` on the monotonic clock."""

    workspace_id: str
    id: str
    event_id: str
    type: str
    endpoint_id: str
    failures: int
    series: int
    replay_id: str | None
    accepted_at: datetime
    body: bytes
    lease_ends_s: float
    due_at: datetime | None
    """When it was due, if a claim leased it; None if the relay did."""

    def is_leased(self) -> bool:
        """Whether this process still holds the lease. If not, another worker may have the row."""
        return self.lease_ends_s > time.monotonic()


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """What a claim returns about an endpoint: enough to choose a `Placement`, not enough to call it."""

    workspace_id: str
    id: str
    version: int
    max_in_flight: int
    rate_per_s: float | None
    live: bool
    """Whether its workspace is a live one, not a test workspace."""

    @classmethod
    def from_row(cls, row: Any) -> "EndpointLimits":
        """Make the limits from a row that the relay or a claim has read."""
        return cls(
            row["workspace_id"],
            row["endpoint_id"],
            row["version"],
            row["max_in_flight"],
            row["rate_per_s"],
            row["live"],
        )


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """An attempt that was made, and the verdict on it."""

    job: DeliveryJob
    response: HttpResponse
    verdict: Verdict
    ended_s: float = field(default_factory=time.monotonic)
    """The end of the attempt on the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Discarded:
    """A delivery that ends without an attempt: its endpoint is deleted, or its payload is erased or expired."""

    job: DeliveryJob
    reason: str


DeliveryResult = AttemptResult | Discarded
