"""Plan a message: resolve its request and refuse, before anything is queued, whatever is already known to be wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from policies.fallback_values import Policy
from policies.windows import quiet_until
from spine.directory.addresses import is_sandbox_address
from spine.kernel.errors import FieldError, Unprocessable
from spine.kernel.settings import TemplateSettings
from spine.kernel.turns import Turns
from spine.notifications.channel_policies import check_deadline, parse_policy
from spine.notifications.message_request import MAX_AHEAD, MessageCreate
from spine.notifications.provider_kinds import Channel
from spine.notifications.rendering import TemplateCache, VariableMissing
from spine.notifications.routing import accounts_of_step, build_strategy, strategy_warnings
from spine.notifications.template_budget import Unrenderable
from spine.notifications.templates import missing_variable
from spine.notifications.workspace_lookup import (
    Recipient,
    WorkspaceLookup,
    find_policy,
    find_recipient,
    find_template,
)


@dataclass(frozen=True, slots=True)
class MessagePlan:
    """A message that can be sent. Its template version, policy version and strategy are pinned on the message."""

    recipient: Recipient
    template: Mapping[str, Any]
    policy_row: Mapping[str, Any] | None
    strategy: dict[str, Any]
    addresses: dict[str, str]
    warnings: list[dict[str, Any]]
    deadline_at: datetime


async def plan_message(
    request: MessageCreate,
    lookup: WorkspaceLookup,
    templates: TemplateCache,
    settings: TemplateSettings,
    env: str,
    now: datetime,
) -> MessagePlan:
    """Plan one message. Raises Unprocessable for whatever is already known to be wrong."""
    recipient = find_recipient(request, lookup)
    template = find_template(request, lookup)
    policy_row = find_policy(request, lookup, template["slug"])
    strategy = build_strategy(request, policy_row, lookup, template, recipient)
    _check_steps(strategy, template, recipient, lookup)
    addresses = {step["channel"]: _checked_address(recipient, step["channel"], env) for step in strategy["steps"]}
    await _check_rendering(request, template, strategy, templates, settings)
    policy = parse_policy(strategy)
    check_deadline(policy, "policy")
    if request.send_at is not None and request.send_at > now + MAX_AHEAD:
        raise Unprocessable("send_at lies more than a year ahead", code="send_at_too_late", param="send_at")
    start = max(request.send_at, now) if request.send_at else now
    deadline_at = start + timedelta(seconds=policy.deadline_s)
    _check_quiet_hours(policy, start, deadline_at)
    warnings = strategy_warnings(strategy, lookup.accounts, template["provider_templates"])
    return MessagePlan(recipient, template, policy_row, strategy, addresses, warnings, deadline_at)


def _check_steps(
    strategy: Mapping[str, Any], template: Mapping[str, Any], recipient: Recipient, lookup: WorkspaceLookup
) -> None:
    for step in strategy["steps"]:
        channel = step["channel"]
        if not template["bodies"].get(channel):
            raise Unprocessable(
                f"the template has no body for {channel}", code="template_body_missing", param="channels"
            )
        if not recipient.address(channel):
            kind = "e-mail address" if channel == Channel.EMAIL else "phone number"
            raise Unprocessable(f"there is no {kind} for {channel}", code="address_missing", param="channels")
        if not accounts_of_step(lookup.accounts, channel, step.get("providers")):
            raise Unprocessable(
                f"there is no provider account for {channel}", code="no_provider_account", param="channels"
            )


def _checked_address(recipient: Recipient, channel: str, env: str) -> str:
    address = recipient.address(channel) or ""
    if env == "live" and is_sandbox_address(address):
        raise Unprocessable(
            "this is an address of the sandbox; send to it with a test key",
            code="sandbox_address",
            param="contact_id" if recipient.contact_id else "to",
        )
    return address


async def _check_rendering(
    request: MessageCreate,
    template: Mapping[str, Any],
    strategy: Mapping[str, Any],
    templates: TemplateCache,
    settings: TemplateSettings,
) -> None:
    """Render for every channel of the strategy now, so that no fallback step fails later on a missing variable.

    Other requests get their turn between the channels.
    """
    absent = [name for name in template["required_vars"] if name not in request.vars]
    if absent:
        error = missing_variable(f"the template needs the variable {absent[0]}", f"vars.{absent[0]}")
        error.errors = [
            FieldError(param=f"vars.{name}", code="variable_missing", detail="the template needs it") for name in absent
        ]
        raise error
    turns = Turns()
    try:
        bodies = await templates.get(template["id"], template)
    except Unrenderable as error:
        raise Unprocessable(f"the template: {error}", code=error.code, param="template") from error
    for step in strategy["steps"]:
        try:
            bodies.content(step["channel"], request.vars, settings)
        except VariableMissing as error:
            raise missing_variable(f"{step['channel']}: {error}") from error
        except Unrenderable as error:
            raise Unprocessable(f"{step['channel']}: {error}", code=error.code, param="vars") from error
        await turns.give()


def _check_quiet_hours(policy: Policy, start: datetime, deadline_at: datetime) -> None:
    quiet = quiet_until(policy.quiet, start) if policy.quiet is not None else None
    if quiet is not None and quiet >= deadline_at:
        raise Unprocessable(
            "the policy's quiet hours last beyond its deadline", code="policy_unmeetable", param="policy"
        )
