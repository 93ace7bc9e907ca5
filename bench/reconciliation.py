"""The account of a run: every event that was accepted is delivered, dead or still open, and what is delivered was received."""

from dataclasses import dataclass


class AccountError(Exception):
    """Deliveries are missing, or the ledger says delivered where nothing was received."""


@dataclass(frozen=True, slots=True)
class Books:
    """Where every delivery of a workspace stands. `outbox` are events that have none yet."""

    delivered: int
    dead: int
    open: int
    outbox: int
    events: int


@dataclass(frozen=True, slots=True)
class Account:
    """Deliveries of one run. `received` are different ones that came to the receivers, `duplicates` what came again."""

    name: str
    accepted: int
    delivered: int
    dead: int
    open: int
    received: int
    duplicates: int

    @property
    def lost(self) -> int:
        """Accepted, and in no state at all."""
        return self.accepted - self.delivered - self.dead - self.open

    @property
    def unreceived(self) -> int:
        """Delivered by the ledger, and never seen by a receiver."""
        return max(0, self.delivered - self.received)

    def require(self) -> "Account":
        """Itself; AccountError unless everything is accounted for."""
        if self.lost or self.unreceived:
            raise AccountError(f"{self.name}: {self.lost} lost, {self.unreceived} delivered and not received ({self})")
        return self


def settle(name: str, books: Books, accepted: int, fan_out: int, received: int, duplicates: int) -> Account:
    """Close the books of a workspace into which `accepted` events went, each for `fan_out` endpoints."""
    if books.events != accepted:
        raise AccountError(f"{name}: {accepted} events were accepted and {books.events} are in the database")
    return Account(
        name=name,
        accepted=accepted * fan_out,
        delivered=books.delivered,
        dead=books.dead,
        open=books.open + books.outbox * fan_out,
        received=received,
        duplicates=duplicates,
    )
