"""What travels through a worker: a leased delivery on the way in, the result of its attempt on the way out."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any

from policies.verdict import Verdict
from spine.kernel.http_client import HttpResponse


class Placement(IntEnum):
    """Where a delivery goes next; the numbers stand in `spine.webhooks.queries` too."""

    LEASED = 0
    """To this process's lane, at once."""
    PARKED = 1
    """Behind a full lane, until it drains."""
    DUE = 2
    """To whoever comes first."""
    HELD = 3
    """Nowhere, while its endpoint is disabled."""


@dataclass(slots=True, eq=False)
class DeliveryJob:
    """A delivery that this process has leased. `lease_ends_s` is on the monotonic clock; beyond it the row is not ours."""

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
    """When it was due, where a claim found it; None where the relay handed it on."""


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """What a claim tells of an endpoint: enough to choose a way, not enough to call it."""

    workspace_id: str
    id: str
    version: int
    max_in_flight: int
    rate_per_s: float | None

    @classmethod
    def read(cls, row: Any) -> "EndpointLimits":
        """From a row of any of the claims."""
        return cls(row["workspace_id"], row["endpoint_id"], row["version"], row["max_in_flight"], row["rate_per_s"])


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """An attempt that was made, and what it means."""

    job: DeliveryJob
    response: HttpResponse
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Discarded:
    """A delivery that ends without an attempt: its endpoint is deleted, its payload erased or dropped."""

    job: DeliveryJob
    reason: str


DeliveryResult = AttemptResult | Discarded
