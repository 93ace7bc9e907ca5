"""Simulate a channel policy: the trace of a message in an imagined world, made by the function that decides in reality."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import select

from policies.fallback_values import Policy, Quotas
from policies.opt_outs import opted_out
from policies.simulation import simulate
from policies.simulation_values import OutcomeKind, ScriptedOutcome, SimulatedWorld
from spine.kernel.errors import Unprocessable
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Timestamp
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.accept import plan_messages
from spine.notifications.channel_policies import PolicyOut, PolicyRow, get_policy_row, parse_policy
from spine.notifications.message_models import Caution
from spine.notifications.message_plan import MessagePlan
from spine.notifications.message_request import MAX_AHEAD, MessageCreate
from spine.notifications.preferences import opt_outs_of
from spine.notifications.provider_accounts import AccountRow
from spine.notifications.provider_kinds import PROVIDER_KINDS, Channel
from spine.notifications.routing import channels_without_money, routes_by_step, strategy_warnings

Named = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""Accounts by id, name or kind, or all those of a channel."""
Seconds = Annotated[float, Field(ge=0, le=30 * 24 * 3600)]


class ImaginedReceipt(Body):
    """What a channel's calls come to, and how long after the call its receipt comes."""

    status: OutcomeKind = "delivered"
    after_s: Seconds | None = None


class ImaginedWorld(Body):
    providers_down: Annotated[list[Named], Field(max_length=100)] = Field(
        default=[], description="Accounts by id, name or kind, or channels, that do not answer."
    )
    receipts: dict[Channel, OutcomeKind | ImaginedReceipt] = Field(
        default={}, description="By channel; `delivered` where nothing is said."
    )
    circuits_open: dict[Named, Seconds] = Field(
        default={}, max_length=100, description="By account, as in `providers_down`: how long its circuit is open."
    )
    recipient_rate: dict[Named, Seconds] = Field(
        default={}, max_length=100, description="By account: how long it may not write to this person again."
    )
    quota_used_up: bool = Field(default=False, description="The quota of messages; the first step is paid for.")
    spend_used_up: bool = Field(default=False, description="The quota of money: accounts that cost some are not used.")
    opted_out: list[Channel] = Field(
        default=[],
        max_length=10,
        description="Channels that the person does not want, beside what the contact has said.",
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
    action: str = Field(description="skip, send, accepted, rejected, unknown, wait, poll, receipt, done or fail.")
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


async def _accounts(unit: UnitOfWork, *, spend_used_up: bool) -> list[dict[str, Any]]:
    query = (
        select(
            AccountRow.id,
            AccountRow.name,
            AccountRow.channel,
            AccountRow.kind,
            AccountRow.priority,
            AccountRow.weight,
            AccountRow.unit_cost_micros,
        )
        .where(AccountRow.workspace_id == unit.workspace_id)
        .order_by(AccountRow.priority, AccountRow.id)
    )
    return [
        {**row, "degraded": False, "spent": spend_used_up and row["unit_cost_micros"] is not None}
        for row in (await unit.session.execute(query)).mappings()
    ]


def _by_account(accounts: list[dict[str, Any]], named: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds by account id, the longest where several names are an account's."""
    found: dict[str, float] = {}
    for account in accounts:
        names = {account["id"], account["name"], account["kind"], account["channel"]}
        seconds = [s for name, s in named.items() if name in names]
        if seconds:
            found[account["id"]] = max(seconds)
    return found


def _scripted_outcomes(receipts: dict[Channel, OutcomeKind | ImaginedReceipt]) -> dict[str, ScriptedOutcome]:
    return {
        str(channel): ScriptedOutcome(one.status, one.after_s)
        if isinstance(one, ImaginedReceipt)
        else ScriptedOutcome(one)
        for channel, one in receipts.items()
    }


def _strategy(row: PolicyRow, plan: MessagePlan | None) -> dict[str, Any]:
    if plan is not None:
        return plan.strategy
    shown = PolicyOut.model_validate(row).model_dump(mode="json")
    return {name: shown[name] for name in ("steps", "deadline_s", "quiet_hours")}


async def _blocked(unit: UnitOfWork, policy: Policy, world: ImaginedWorld, plan: MessagePlan | None) -> dict[str, str]:
    """Return the channels that the person does not want: those of the imagined world, and what the contact has said."""
    channels = set(world.opted_out)
    if plan is not None and plan.recipient.contact_id is not None:
        opt_outs = await opt_outs_of(unit, plan.recipient.contact_id)
        category = plan.template["category"]
        channels |= {Channel(step.channel) for step in policy.steps if opted_out(opt_outs, step.channel, category)}
    return dict.fromkeys(channels, "opted_out")


@router.post(
    "/{id}/simulate",
    openapi_extra=declares("notifications:read", SIMULATED),
    summary="Try a policy in an imagined world; the trace is made by the code that sends",
)
async def simulate_channel_policy(id: str, unit: CurrentUnit, body: SimulateBody | None = None) -> SimulationOut:
    request = body or SimulateBody()
    row = await get_policy_row(unit, id)
    plan = None
    if request.message is not None:
        message = request.message.model_copy(update={"policy": row.id})
        plan = (await plan_messages(unit.platform, unit.caller, [message]))[0]
    strategy = _strategy(row, plan)
    policy = parse_policy(strategy)
    imagined = request.world
    accounts = await _accounts(unit, spend_used_up=imagined.spend_used_up)
    start = request.at or await unit.now()
    if abs(start - await unit.now()) > MAX_AHEAD:
        raise Unprocessable("at lies more than a year away", code="at_too_far", param="at")
    world = SimulatedWorld(
        routes_by_step(policy, [account for account in accounts if not account["spent"]], row.id),
        frozenset(_by_account(accounts, dict.fromkeys(imagined.providers_down, 0.0))),
        _scripted_outcomes(imagined.receipts),
        await _blocked(unit, policy, imagined, plan),
        _by_account(accounts, imagined.circuits_open),
        _by_account(accounts, imagined.recipient_rate),
        Quotas(imagined.quota_used_up, channels_without_money(policy, accounts)),
        frozenset(account["id"] for account in accounts if PROVIDER_KINDS[account["kind"]].polls),
        (plan.addresses["sms"], (plan.template["dlt"] or {}).get("category"))
        if plan and "sms" in plan.addresses
        else None,
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
