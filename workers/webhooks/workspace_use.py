"""What the deliveries of each workspace use of this process: places, bytes and calls."""

from collections.abc import Collection

from policies import fair_share


class WorkspaceUse:
    """The use of one workspace. Only `EndpointQueues`, `HeldBodies` and `CallSlots` change it."""

    __slots__ = ("_uses", "bytes", "calls", "held", "id", "live", "queues", "slow_held")

    def __init__(self, id: str, uses: "WorkspaceUses", *, live: bool) -> None:
        self._uses = uses
        self.id = id
        self.live = live
        self.held = 0
        """Deliveries leased to this process, and places that are reserved for more."""
        self.slow_held = 0
        """Those of its slow queues."""
        self.bytes = 0
        """Bytes of the bodies of its deliveries, each body once."""
        self.calls = [0, 0]
        """Calls in flight of its fast queues, and of its slow ones."""
        self.queues = 0
        """Its endpoint queues."""

    def room(self, held: int, free: int, capacity: int) -> int:
        """How much more it may take of something of which it holds `held`, while `free` of the whole `capacity` is unused.

        Live workspaces share all of it. While none of them holds anything, test workspaces share 3/8 of it in the same
        manner; otherwise they have the smaller part of `policies.fair_share`.
        """
        if self.live:
            return fair_share.room(held, free, live=True)
        alone = 0 if self._uses.live_holding else fair_share.room(held, free - _left_by_tests(capacity), live=True)
        return alone or fair_share.room(held, free, live=False)

    def has_room(self, held: int, free: int, capacity: int) -> bool:
        """Whether `room` is more than 0."""
        if fair_share.has_room(held, free, live=self.live):
            return True
        if self.live or self._uses.live_holding:
            return False
        return fair_share.has_room(held, free - _left_by_tests(capacity), live=True)

    def is_over(self, held: int, free: int, capacity: int) -> bool:
        """Whether it holds more than it may, because others have taken what was free."""
        if (
            not self.live
            and not self._uses.live_holding
            and not fair_share.is_over(held, free - _left_by_tests(capacity), live=True)
        ):
            return False
        return fair_share.is_over(held, free, live=self.live)


class WorkspaceUses:
    """The use of every workspace that has an endpoint queue in this process."""

    def __init__(self) -> None:
        self._uses: dict[str, WorkspaceUse] = {}
        self._holding: dict[WorkspaceUse, None] = {}
        self.live_holding = 0
        """How many live workspaces hold deliveries or have places reserved."""

    @property
    def holding(self) -> Collection[WorkspaceUse]:
        """The workspaces that hold deliveries or have places reserved."""
        return self._holding.keys()

    def find(self, id: str) -> WorkspaceUse | None:
        """The use of a workspace; None if it has no endpoint queue here."""
        return self._uses.get(id)

    def open_queue(self, id: str, *, live: bool) -> WorkspaceUse:
        """Count one more endpoint queue of a workspace, and return its use."""
        use = self._uses.get(id)
        if use is None:
            use = self._uses[id] = WorkspaceUse(id, self, live=live)
        use.queues += 1
        return use

    def close_queue(self, use: WorkspaceUse) -> None:
        """Forget one endpoint queue of a workspace, and with the last one the workspace."""
        use.queues -= 1
        if not use.queues:
            del self._uses[use.id]

    def hold(self, use: WorkspaceUse, count: int) -> None:
        """Count deliveries that the workspace holds from now on; a negative count gives them back."""
        held_before = bool(use.held)
        use.held += count
        if use.held:
            self._holding[use] = None
        else:
            self._holding.pop(use, None)
        if use.live:
            self.live_holding += bool(use.held) - held_before


def _left_by_tests(capacity: int) -> int:
    """What test workspaces leave for live ones that may come: the greater part, so that these need not wait for their ends."""
    return capacity * 5 // 8
