"""Routing: the steps that a message takes, and the provider accounts that each step may use."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from policies.degraded import SHARE
from policies.fallback_values import Policy, Route, Step
from policies.weights import in_turn
from spine.kernel.errors import Unprocessable
from spine.notifications.message_request import MessageCreate
from spine.notifications.provider_kinds import PROVIDER_KINDS, Channel
from spine.notifications.workspace_lookup import Recipient, WorkspaceLookup

Accounts = Sequence[Mapping[str, Any]]
"""Provider accounts of one workspace as rows, in order of priority."""

_NONE: Final[Mapping[str, Any]] = {}
_DEFAULT_WAIT_S: Final = 300
_DEFAULT_DEADLINE_S: Final = 24 * 3600
_DEFAULT_ORDER: Final = (Channel.WHATSAPP, Channel.SMS, Channel.EMAIL)


def build_strategy(
    request: MessageCreate,
    policy_row: Mapping[str, Any] | None,
    lookup: WorkspaceLookup,
    template: Mapping[str, Any],
    recipient: Recipient,
) -> dict[str, Any]:
    """Return the steps, deadline and quiet hours in force.

    The steps are the request's channels in their order, with the policy's settings; else the policy's steps; else one
    step for every usable channel. Raises Unprocessable `no_channel`.
    """
    policy_steps = list(policy_row["steps"]) if policy_row is not None else []
    if request.channels is not None:
        steps = [
            next((step for step in policy_steps if step["channel"] == channel), None) or _default_step(channel, lookup)
            for channel in request.channels
        ]
    elif policy_row is not None:
        steps = policy_steps
    else:
        steps = [_default_step(channel, lookup) for channel in _usable_channels(lookup, template, recipient)]
    return {
        "steps": steps,
        "deadline_s": policy_row["deadline_s"] if policy_row is not None else _DEFAULT_DEADLINE_S,
        "quiet_hours": policy_row["quiet_hours"] if policy_row is not None else None,
    }


def _usable_channels(lookup: WorkspaceLookup, template: Mapping[str, Any], recipient: Recipient) -> list[Channel]:
    usable = [
        channel
        for channel in _DEFAULT_ORDER
        if template["bodies"].get(channel)
        and recipient.address(channel)
        and accounts_of_step(lookup.accounts, channel, None)
    ]
    if not usable:
        raise Unprocessable(
            "no channel has a body in the template, an address of the person and a provider account",
            code="no_channel",
            param="channels",
        )
    return usable


def _default_step(channel: str, lookup: WorkspaceLookup) -> dict[str, Any]:
    accounts = accounts_of_step(lookup.accounts, channel, None)
    receipts = any(PROVIDER_KINDS[account["kind"]].receipts for account in accounts)
    return {"channel": str(channel), "success": "delivered" if receipts else "sent", "wait_s": _DEFAULT_WAIT_S}


def accounts_of_step(accounts: Accounts, channel: str, providers: Sequence[str] | None) -> list[Mapping[str, Any]]:
    """Return the channel's accounts that a step may use, in order of use.

    `providers` names accounts by id, name or kind; without it, all accounts of the channel are used.
    """
    on_channel = [account for account in accounts if account["channel"] == channel]
    if not providers:
        return on_channel
    found: dict[str, Mapping[str, Any]] = {}
    for name in providers:
        for account in on_channel:
            if name in (account["id"], account["name"], account["kind"]):
                found.setdefault(account["id"], account)
    return list(found.values())


def routes_by_step(policy: Policy, accounts: Accounts, message_id: str) -> dict[int, list[Route]]:
    """Return the routes of each step, by the step's number from 0.

    Accounts of one priority share the messages by their weights, a degraded one by a part of its weight. A step that names
    its providers keeps their order.
    """
    return {
        n: [
            Route(account["id"], PROVIDER_KINDS[account["kind"]].receipts)
            for account in _shared_out(accounts_of_step(accounts, step.channel, step.providers), step, message_id)
        ]
        for n, step in enumerate(policy.steps)
    }


def _shared_out(accounts: Accounts, step: Step, message_id: str) -> Accounts:
    if step.providers or len(accounts) < 2:
        return accounts
    weights = {account["id"]: account["weight"] * (SHARE if account["degraded"] else 1) for account in accounts}
    turn = {id: n for n, id in enumerate(in_turn(message_id, weights))}
    return sorted(accounts, key=lambda account: (account["priority"], turn[account["id"]]))


def channels_without_money(policy: Policy, accounts: Accounts) -> frozenset[str]:
    """Return the channels of steps that have accounts, each of which costs money that is spent."""
    found = set()
    for step in policy.steps:
        usable = accounts_of_step(accounts, step.channel, step.providers)
        if usable and all(account["spent"] for account in usable):
            found.add(step.channel)
    return frozenset(found)


def strategy_warnings(
    strategy: Mapping[str, Any], accounts: Accounts, provider_templates: Mapping[str, Any] = _NONE
) -> list[dict[str, Any]]:
    """Warn of waits that are shorter than a provider's time to live, and of providers that send no receipts.

    The time to live is that of the provider's own template, where ours names it.
    """
    found: list[dict[str, Any]] = []
    for step in strategy["steps"]:
        channel = step["channel"]
        kinds = {account["kind"] for account in accounts_of_step(accounts, channel, step.get("providers"))}
        longest_s = max((_time_to_live_s(kind, provider_templates) for kind in kinds), default=0)
        if step["wait_s"] < longest_s:
            detail = f"{channel} goes on trying for {longest_s} s and the step waits {step['wait_s']} s: the person may get it twice"
            found.append({"code": "wait_below_time_to_live", "detail": detail, "channel": channel})
        if step["success"] == "delivered" and any(not PROVIDER_KINDS[kind].receipts for kind in kinds):
            detail = f"a provider of {channel} sends no receipts; with it, accepted counts as success"
            found.append({"code": "receipts_unsupported", "detail": detail, "channel": channel})
    return found


def _time_to_live_s(kind: str, provider_templates: Mapping[str, Any]) -> int:
    named: int | None = provider_templates.get(kind, {}).get("ttl_s")
    return named if named is not None else PROVIDER_KINDS[kind].time_to_live_s or 0
