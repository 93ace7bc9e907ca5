"""Simulate a channel policy: the trace of a message in an imagined world, made by the function that decides in reality."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import select

from policies.simulation import ScriptedOutcome, SimulatedWorld, simulate
from spine.kernel.errors import Unprocessable
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Timestamp
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.accept import plan_messages
from spine.notifications.channel_policies import PolicyOut, PolicyRow, get_policy_row, parse_policy
from spine.notifications.message_models import Caution
from spine.notifications.message_request import MAX_AHEAD, MessageCreate
from spine.notifications.provider_accounts import AccountRow
from spine.notifications.provider_kinds import Channel
from spine.notifications.routing import routes_by_step, strategy_warnings

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
        select(
            AccountRow.id, AccountRow.name, AccountRow.channel, AccountRow.kind, AccountRow.priority, AccountRow.weight
        )
        .where(AccountRow.workspace_id == unit.workspace_id)
        .order_by(AccountRow.priority, AccountRow.id)
    )
    return [{**row, "degraded": False} for row in (await unit.session.execute(query)).mappings()]


def _down(accounts: list[dict[str, Any]], names: list[str]) -> frozenset[str]:
    wanted = set(names)
    return frozenset(
        account["id"]
        for account in accounts
        if wanted & {account["id"], account["name"], account["kind"], account["channel"]}
    )


def _scripted_outcomes(receipts: dict[Channel, Kind | ImaginedReceipt]) -> dict[str, ScriptedOutcome]:
    return {
        str(channel): ScriptedOutcome(one.status, one.after_s)
        if isinstance(one, ImaginedReceipt)
        else ScriptedOutcome(one)
        for channel, one in receipts.items()
    }


async def _strategy(unit: UnitOfWork, row: PolicyRow, message: MessageCreate | None) -> dict[str, Any]:
    if message is None:
        shown = PolicyOut.model_validate(row).model_dump(mode="json")
        return {name: shown[name] for name in ("steps", "deadline_s", "quiet_hours")}
    request = message.model_copy(update={"policy": row.id})
    return (await plan_messages(unit.platform, unit.caller, [request]))[0].strategy


@router.post(
    "/{id}/simulate",
    openapi_extra=declares("notifications:read", SIMULATED),
    summary="Try a policy in an imagined world; the trace is made by the code that sends",
)
async def simulate_channel_policy(id: str, unit: CurrentUnit, body: SimulateBody | None = None) -> SimulationOut:
    request = body or SimulateBody()
    row = await get_policy_row(unit, id)
    strategy = await _strategy(unit, row, request.message)
    policy = parse_policy(strategy)
    accounts = await _accounts(unit)
    start = request.at or await unit.now()
    if abs(start - await unit.now()) > MAX_AHEAD:
        raise Unprocessable("at lies more than a year away", code="at_too_far", param="at")
    world = SimulatedWorld(
        routes_by_step(policy, accounts, row.id),
        _down(accounts, request.world.providers_down),
        _scripted_outcomes(request.world.receipts),
    )
    lines, outcome, duplicate_possible = simulate(policy, world, start)
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
        warnings=[Caution.model_validate(one) for one in strategy_warnings(strategy, accounts)],
    )
