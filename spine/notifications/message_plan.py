"""From a request to a strategy: everything that can be known to be wrong is refused here, before anything is queued."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints, model_validator

from policies.fallback_values import Policy
from policies.windows import quiet_until
from spine.directory.addresses import Email, Phone, email_address, is_sandbox_address, phone_e164
from spine.kernel import ids
from spine.kernel.errors import FieldError, Unprocessable
from spine.kernel.resource import Body, Metadata, Timestamp
from spine.notifications.channel_policies import policy_of, refuse_unmeetable
from spine.notifications.provider_kinds import PROVIDER_KINDS, Channel
from spine.notifications.rendering import Templates, Unrenderable, VariableMissing
from spine.notifications.templates import Locale, Vars, missing_variable

DEFAULT_WAIT_S: Final = 300
DEFAULT_DEADLINE_S: Final = 24 * 3600
MAX_AHEAD: Final = timedelta(days=366)
_DEFAULT_ORDER: Final = (Channel.WHATSAPP, Channel.SMS, Channel.EMAIL)
_DEFAULT_LOCALE: Final = "en"

Reference = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class To(Body):
    """A person who is not in the address book."""

    phone: Phone | None = None
    email: Email | None = None

    @model_validator(mode="after")
    def _has_one(self) -> "To":
        if self.phone is None and self.email is None:
            raise ValueError("give a phone, an email, or both")
        return self


class MessageCreate(Body):
    contact_id: Reference | None = None
    to: Annotated[str, StringConstraints(min_length=3, max_length=320)] | To | None = Field(
        default=None, description="A phone number or e-mail address, where no contact is named."
    )
    template: Reference = Field(description="A template's slug, for its newest version, or the id of one version.")
    channels: Annotated[list[Channel], Field(min_length=1, max_length=3)] | None = Field(
        default=None,
        description="An ordered preference, never a broadcast. Without it, the policy that applies decides.",
    )
    policy: Reference | None = Field(default=None, description="A channel policy's slug or id.")
    vars: Vars = {}
    locale: Locale | None = None
    send_at: Timestamp | None = None
    metadata: Metadata = {}

    @model_validator(mode="after")
    def _one_recipient(self) -> "MessageCreate":
        if (self.contact_id is None) == (self.to is None):
            raise ValueError("give either contact_id or to")
        if self.channels is not None and len(set(self.channels)) < len(self.channels):
            raise ValueError("a channel stands in channels once")
        return self


@dataclass(frozen=True, slots=True)
class Recipient:
    """Where a message goes."""

    contact_id: str | None
    phone: str | None
    email: str | None

    def address(self, channel: str) -> str | None:
        """The address on a channel."""
        return self.email if channel == Channel.EMAIL else self.phone


@dataclass(frozen=True, slots=True)
class Plan:
    """A message that can be sent: what is pinned on it."""

    recipient: Recipient
    template: Mapping[str, Any]
    policy_row: Mapping[str, Any] | None
    strategy: dict[str, Any]
    addresses: dict[str, str]
    warnings: list[dict[str, Any]]
    deadline_at: datetime


@dataclass(frozen=True, slots=True)
class WorkspaceLookup:
    """What the workspace has that the requests name (`spine.messages_lookup`)."""

    contacts: Sequence[Mapping[str, Any]]
    templates: Sequence[Mapping[str, Any]]
    templates_by_id: Sequence[Mapping[str, Any]]
    policies: Sequence[Mapping[str, Any]]
    accounts: Sequence[Mapping[str, Any]]


def parse_recipient(to: str | To | None) -> tuple[str | None, str | None]:
    """(phone, email) of a recipient given without a contact. Raises Unprocessable."""
    if to is None:
        return None, None
    if isinstance(to, To):
        return to.phone, to.email
    try:
        return (None, email_address(to)) if "@" in to else (phone_e164(to), None)
    except ValueError as error:
        raise Unprocessable(f"to: {error}", code="invalid_recipient", param="to") from error


def plan(request: MessageCreate, lookup: WorkspaceLookup, parsed: Templates, env: str, now: datetime) -> Plan:
    """What this message would do. Raises Unprocessable for whatever can be known to be wrong by now."""
    recipient = _person(request, lookup)
    template = _template(request, lookup)
    row = _policy_row(request, lookup, template["slug"])
    strategy = _strategy(request, row, lookup, template, recipient)
    _refuse_missing_parts(strategy, template, recipient, lookup)
    addresses = {step["channel"]: _address(recipient, step["channel"], env) for step in strategy["steps"]}
    _refuse_unrenderable(request, template, strategy, parsed)
    policy = policy_of(strategy)
    refuse_unmeetable(policy, "policy")
    if request.send_at is not None and request.send_at > now + MAX_AHEAD:
        raise Unprocessable("send_at lies more than a year ahead", code="send_at_too_late", param="send_at")
    start = max(request.send_at, now) if request.send_at else now
    deadline_at = start + timedelta(seconds=policy.deadline_s)
    _refuse_quiet_beyond(policy, start, deadline_at)
    return Plan(recipient, template, row, strategy, addresses, warnings(strategy, lookup.accounts), deadline_at)


def _person(request: MessageCreate, lookup: WorkspaceLookup) -> Recipient:
    if request.contact_id is not None:
        found = next((contact for contact in lookup.contacts if contact["id"] == request.contact_id), None)
        if found is None:
            raise Unprocessable(
                "contact_id names nothing in this workspace", code="reference_not_found", param="contact_id"
            )
        return Recipient(found["id"], found["phone"], found["email"])
    phone, email = parse_recipient(request.to)
    # Whoever is in the address book is found there, so that nobody's wishes are passed by.
    owners = {
        contact["id"]
        for contact in lookup.contacts
        if (phone is not None and contact["phone"] == phone) or (email is not None and contact["email"] == email)
    }
    return Recipient(owners.pop() if len(owners) == 1 else None, phone, email)


def _template(request: MessageCreate, lookup: WorkspaceLookup) -> Mapping[str, Any]:
    if ids.is_id(request.template, "ntp"):
        found = next((one for one in lookup.templates_by_id if one["id"] == request.template), None)
    else:
        versions = {one["locale"]: one for one in lookup.templates if one["slug"] == request.template}
        found = _in_locale(versions, request.locale)
    if found is None:
        where = f" in {request.locale}" if request.locale else ""
        raise Unprocessable(
            f"there is no template {request.template}{where}"[:200], code="template_not_found", param="template"
        )
    return found


def _in_locale(versions: Mapping[str, Mapping[str, Any]], locale: str | None) -> Mapping[str, Any] | None:
    """The version in this locale, or in its language alone; without a wish the one in English, else the first made."""
    if locale is not None:
        return versions.get(locale) or versions.get(locale.partition("_")[0])
    return versions.get(_DEFAULT_LOCALE) or next(iter(versions.values()), None)


def _policy_row(request: MessageCreate, lookup: WorkspaceLookup, slug: str) -> Mapping[str, Any] | None:
    if request.policy is not None:
        named = next((row for row in lookup.policies if request.policy in (row["slug"], row["id"])), None)
        if named is None:
            raise Unprocessable("policy names nothing in this workspace", code="reference_not_found", param="policy")
        return named
    of_template = next((row for row in lookup.policies if row["applies_to"].get("template") == slug), None)
    return of_template or next((row for row in lookup.policies if not row["applies_to"].get("template")), None)


def _strategy(
    request: MessageCreate,
    row: Mapping[str, Any] | None,
    lookup: WorkspaceLookup,
    template: Mapping[str, Any],
    recipient: Recipient,
) -> dict[str, Any]:
    """The steps in force: the request's channels in their order, with the policy's settings, or else the policy's own."""
    by_policy = list(row["steps"]) if row is not None else []
    if request.channels is not None:
        steps = [
            next((step for step in by_policy if step["channel"] == channel), None) or _default_step(channel, lookup)
            for channel in request.channels
        ]
    elif row is not None:
        steps = by_policy
    else:
        usable = [
            channel
            for channel in _DEFAULT_ORDER
            if template["bodies"].get(channel) and recipient.address(channel) and _accounts(channel, lookup)
        ]
        if not usable:
            raise Unprocessable(
                "no channel has a body in the template, an address of the person and a provider account",
                code="no_channel",
                param="channels",
            )
        steps = [_default_step(channel, lookup) for channel in usable]
    return {
        "steps": steps,
        "deadline_s": row["deadline_s"] if row is not None else DEFAULT_DEADLINE_S,
        "quiet_hours": row["quiet_hours"] if row is not None else None,
    }


def _default_step(channel: str, lookup: WorkspaceLookup) -> dict[str, Any]:
    confirms = any(PROVIDER_KINDS[account["kind"]].receipts for account in _accounts(channel, lookup))
    return {"channel": str(channel), "success": "delivered" if confirms else "sent", "wait_s": DEFAULT_WAIT_S}


def _accounts(channel: str, lookup: WorkspaceLookup) -> list[Mapping[str, Any]]:
    return [account for account in lookup.accounts if account["channel"] == channel]


def accounts_of_step(accounts: Sequence[Mapping[str, Any]], providers: Sequence[str] | None) -> list[Mapping[str, Any]]:
    """The accounts that a step may use, in its order: those it names by id, name or kind, or all of them."""
    if not providers:
        return list(accounts)
    found: dict[str, Mapping[str, Any]] = {}
    for name in providers:
        for account in accounts:
            if name in (account["id"], account["name"], account["kind"]):
                found.setdefault(account["id"], account)
    return list(found.values())


def _refuse_missing_parts(
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
        if not accounts_of_step(_accounts(channel, lookup), step.get("providers")):
            raise Unprocessable(
                f"there is no provider account for {channel}", code="no_provider_account", param="channels"
            )


def _address(recipient: Recipient, channel: str, env: str) -> str:
    address = recipient.address(channel) or ""
    if env == "live" and is_sandbox_address(address):
        raise Unprocessable(
            "this is an address of the sandbox; send to it with a test key",
            code="sandbox_address",
            param="contact_id" if recipient.contact_id else "to",
        )
    return address


def _refuse_unrenderable(
    request: MessageCreate, template: Mapping[str, Any], strategy: Mapping[str, Any], parsed: Templates
) -> None:
    """Render for every channel of the strategy now, so that no fallback finds a variable missing later."""
    absent = [name for name in template["required_vars"] if name not in request.vars]
    if absent:
        errors = [
            FieldError(param=f"vars.{name}", code="variable_missing", detail="the template needs it") for name in absent
        ]
        error = missing_variable(f"the template needs the variable {absent[0]}", f"vars.{absent[0]}")
        error.errors = errors
        raise error
    bodies = parsed.get(template["id"], template["bodies"])
    for step in strategy["steps"]:
        try:
            bodies.content(step["channel"], request.vars)
        except VariableMissing as error:
            raise missing_variable(f"{step['channel']}: {error}") from error
        except Unrenderable as error:
            raise Unprocessable(f"{step['channel']}: {error}", code="template_unrenderable", param="vars") from error


def _refuse_quiet_beyond(policy: Policy, start: datetime, deadline_at: datetime) -> None:
    quiet = quiet_until(policy.quiet, start) if policy.quiet is not None else None
    if quiet is not None and quiet >= deadline_at:
        raise Unprocessable(
            "the policy's quiet hours last beyond its deadline", code="policy_unmeetable", param="policy"
        )


def warnings(strategy: Mapping[str, Any], accounts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the caller should know of this strategy: waits shorter than a provider goes on trying, missing receipts."""
    found: list[dict[str, Any]] = []
    for step in strategy["steps"]:
        channel = step["channel"]
        kinds = {
            account["kind"]
            for account in accounts_of_step(
                [one for one in accounts if one["channel"] == channel], step.get("providers")
            )
        }
        longest_s = max((PROVIDER_KINDS[kind].time_to_live_s or 0 for kind in kinds), default=0)
        if step["wait_s"] < longest_s:
            detail = f"{channel} goes on trying for {longest_s} s and the step waits {step['wait_s']} s: the person may get it twice"
            found.append({"code": "wait_below_time_to_live", "detail": detail, "channel": channel})
        if step["success"] == "delivered" and any(not PROVIDER_KINDS[kind].receipts for kind in kinds):
            detail = f"a provider of {channel} sends no receipts; with it, accepted counts as success"
            found.append({"code": "receipts_unsupported", "detail": detail, "channel": channel})
    return found
