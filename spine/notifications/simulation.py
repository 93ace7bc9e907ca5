"""Trying a policy out: the trace of a message through an imagined world, by the function that decides in the real one."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import select

from policies.fallback import Route
from policies.simulation import Fate, SimulatedWorld, simulate
from spine.kernel.errors import Unprocessable
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Timestamp
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.accept import planned
from spine.notifications.channel_policies import PolicyOut, PolicyRow, find, policy_of
from spine.notifications.message_models import Caution
from spine.notifications.message_plan import MAX_AHEAD, MessageCreate, accounts_of_step, warnings
from spine.notifications.provider_accounts import AccountRow
from spine.notifications.provider_kinds import PROVIDER_KINDS, Channel

Kind = Literal[
    "sent", "delivered", "read", "failed", "none", "late", "rejected", "rate_limited", "timeout", "transient"
]
Named = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class ImaginedReceipt(Body):
    """What a channel's calls come to, and how long after the call its receipt comes."""

    status: Kind = "delivered"
    after_s: float | None = Field(default=None, ge=0, le=30 * 24 * 3600)


class ImaginedWorld(Body):
    providers_down: Annotated[list[Named], Field(max_length=100)] = Field(
        default=[], description="Accounts by id, name or kind, or channels, that do not answer."
    )
    receipts: dict[Channel, Kind | ImaginedReceipt] = Field(
        default={}, description="By channel; `delivered` where nothing is said."
    )


class SimulateBody(Body):
    world: ImaginedWorld = ImaginedWorld()
    message: MessageCreate | None = Field(
        default=None, description="A message to try it with; what would be refused on sending is refused here."
    )
    at: Timestamp | None = Field(default=None, description="When it starts; now, where nothing is said.")


class TraceLine(BaseModel):
    """One thing that would happen."""

    at_s: float = Field(description="Seconds after the start.")
    action: str = Field(description="skip, send, accepted, rejected, unknown, wait, receipt, done or fail.")
    step: int | None
    channel: str | None
    provider: str | None = Field(description="The account's kind.")
    provider_account_id: str | None
    reason: str | None
    until_s: float | None


class PolicySimulated(BaseModel):
    """A trial of a policy; what came of it is in its answer."""

    policy_id: str
    policy_version: int
    outcome: str


class SimulationOut(BaseModel):
    """What would happen."""

    object: str = "simulation"
    policy_id: str
    policy_version: int
    trace: list[TraceLine]
    outcome: str = Field(description="delivered, read, sent or failed.")
    duplicate_possible: bool = Field(description="Whether more than one attempt may have reached the person.")
    warnings: list[Caution]


SIMULATED = EventType("policy.simulated", PolicySimulated, "A channel policy was tried out in an imagined world.")

router = new_router("/notifications/v1/channel_policies", "channel_policies")


async def _accounts(unit: UnitOfWork) -> list[dict[str, Any]]:
    query = (
        select(AccountRow.id, AccountRow.name, AccountRow.channel, AccountRow.kind)
        .where(AccountRow.workspace_id == unit.workspace_id)
        .order_by(AccountRow.priority, AccountRow.id)
    )
    return [dict(row) for row in (await unit.session.execute(query)).mappings()]


def _down(accounts: list[dict[str, Any]], names: list[str]) -> frozenset[str]:
    wanted = set(names)
    return frozenset(
        account["id"]
        for account in accounts
        if wanted & {account["id"], account["name"], account["kind"], account["channel"]}
    )


def _fates(receipts: dict[Channel, Kind | ImaginedReceipt]) -> dict[str, Fate]:
    return {
        str(channel): Fate(told.status, told.after_s) if isinstance(told, ImaginedReceipt) else Fate(told)
        for channel, told in receipts.items()
    }


async def _strategy(unit: UnitOfWork, row: PolicyRow, message: MessageCreate | None) -> dict[str, Any]:
    if message is None:
        shown = PolicyOut.model_validate(row).model_dump(mode="json")
        return {name: shown[name] for name in ("steps", "deadline_s", "quiet_hours")}
    asked = message.model_copy(update={"policy": row.id})
    return (await planned(unit.platform, unit.caller, [asked]))[0].strategy


@router.post(
    "/{id}/simulate",
    openapi_extra=declares("notifications:read", SIMULATED),
    summary="Try a policy in an imagined world; the trace is made by the code that sends",
)
async def simulate_policy(id: str, unit: CurrentUnit, body: SimulateBody | None = None) -> SimulationOut:
    wish = body or SimulateBody()
    row = await find(unit, id)
    strategy = await _strategy(unit, row, wish.message)
    policy = policy_of(strategy)
    accounts = await _accounts(unit)
    routes = {
        n: [
            Route(account["id"], PROVIDER_KINDS[account["kind"]].receipts)
            for account in accounts_of_step([one for one in accounts if one["channel"] == step.channel], step.providers)
        ]
        for n, step in enumerate(policy.steps)
    }
    start = wish.at or await unit.now()
    if abs(start - await unit.now()) > MAX_AHEAD:
        raise Unprocessable("at lies more than a year away", code="at_too_far", param="at")
    simulated = SimulatedWorld(routes, _down(accounts, wish.world.providers_down), _fates(wish.world.receipts))
    lines, outcome, duplicate_possible = simulate(policy, simulated, start)
    unit.emit(
        SIMULATED, PolicySimulated(policy_id=row.id, policy_version=row.version, outcome=outcome), sequence=row.version
    )
    kind_of = {account["id"]: account["kind"] for account in accounts}
    return SimulationOut(
        policy_id=row.id,
        policy_version=row.version,
        trace=[
            TraceLine(
                at_s=line.at_s,
                action=line.action,
                step=line.step,
                channel=line.channel,
                provider=kind_of.get(line.account_id or ""),
                provider_account_id=line.account_id,
                reason=line.reason,
                until_s=line.until_s,
            )
            for line in lines
        ],
        outcome=outcome,
        duplicate_possible=duplicate_possible,
        warnings=[Caution.model_validate(one) for one in warnings(strategy, accounts)],
    )
