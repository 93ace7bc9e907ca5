"""Reconcile a run: every accepted event is delivered, dead or open, and every delivered one was received."""

from dataclasses import dataclass


class ReconciliationError(Exception):
    """Deliveries are missing, or the database has delivered ones that no receiver received."""


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """Deliveries of a workspace by state. `outbox` counts events that have no deliveries yet."""

    delivered: int
    dead: int
    open: int
    outbox: int
    events: int


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Deliveries of one run. `received` counts different deliveries at the receivers, `duplicates` repeated ones."""

    name: str
    accepted: int
    delivered: int
    dead: int
    open: int
    received: int
    duplicates: int

    @property
    def lost(self) -> int:
        """Accepted deliveries that are in no state."""
        return self.accepted - self.delivered - self.dead - self.open

    @property
    def unreceived(self) -> int:
        """Delivered according to the database, but not received."""
        return max(0, self.delivered - self.received)

    def require(self) -> "Reconciliation":
        """Return self. Raises ReconciliationError if a delivery is missing."""
        if self.lost or self.unreceived:
            raise ReconciliationError(
                f"{self.name}: {self.lost} lost, {self.unreceived} delivered and not received ({self})"
            )
        return self


def reconcile(
    name: str, counts: DeliveryCounts, accepted: int, fan_out: int, received: int, duplicates: int
) -> Reconciliation:
    """Compare the counts of a workspace with its `accepted` events, each for `fan_out` endpoints.

    Raises ReconciliationError if accepted events are not in the database.
    """
    if counts.events != accepted:
        raise ReconciliationError(f"{name}: {accepted} events were accepted and {counts.events} are in the database")
    return Reconciliation(
        name=name,
        accepted=accepted * fan_out,
        delivered=counts.delivered,
        dead=counts.dead,
        open=counts.open + counts.outbox * fan_out,
        received=received,
        duplicates=duplicates,
    )
