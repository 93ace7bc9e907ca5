"""Resolve what a message request names in its workspace: the contact, the template and the channel policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from spine.kernel import ids
from spine.kernel.errors import Unprocessable
from spine.kernel.store import reference_not_found
from spine.notifications.message_request import MessageCreate, parse_recipient
from spine.notifications.provider_kinds import Channel

_DEFAULT_LOCALE: Final = "en"


@dataclass(frozen=True, slots=True)
class WorkspaceLookup:
    """The rows of the workspace that the requests may name (`spine.messages_lookup`)."""

    contacts: Sequence[Mapping[str, Any]]
    templates: Sequence[Mapping[str, Any]]
    templates_by_id: Sequence[Mapping[str, Any]]
    policies: Sequence[Mapping[str, Any]]
    accounts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Recipient:
    """The addresses of a message's recipient, and the contact that they belong to, if any."""

    contact_id: str | None
    phone: str | None
    email: str | None

    def address(self, channel: str) -> str | None:
        """Return the address on a channel."""
        return self.email if channel == Channel.EMAIL else self.phone


def find_recipient(request: MessageCreate, lookup: WorkspaceLookup) -> Recipient:
    """Return the recipient that the request names. Raises Unprocessable."""
    if request.contact_id is not None:
        found = next((contact for contact in lookup.contacts if contact["id"] == request.contact_id), None)
        if found is None:
            raise reference_not_found("contact_id")
        return Recipient(found["id"], found["phone"], found["email"])
    phone, email = parse_recipient(request.to)
    # An address of exactly one contact belongs to that contact, so that the contact's opt-outs apply.
    owners = {
        contact["id"]
        for contact in lookup.contacts
        if (phone is not None and contact["phone"] == phone) or (email is not None and contact["email"] == email)
    }
    return Recipient(owners.pop() if len(owners) == 1 else None, phone, email)


def find_template(request: MessageCreate, lookup: WorkspaceLookup) -> Mapping[str, Any]:
    """Return the template version that the request names. Raises Unprocessable `template_not_found`."""
    if ids.is_id(request.template, "ntp"):
        found = next((one for one in lookup.templates_by_id if one["id"] == request.template), None)
    else:
        versions = {one["locale"]: one for one in lookup.templates if one["slug"] == request.template}
        found = _in_locale(versions, request.locale)
    if found is None:
        in_locale = f" in {request.locale}" if request.locale else ""
        raise Unprocessable(
            f"there is no template {request.template}{in_locale}"[:200], code="template_not_found", param="template"
        )
    return found


def _in_locale(versions: Mapping[str, Mapping[str, Any]], locale: str | None) -> Mapping[str, Any] | None:
    """Return the version in this locale, else in its language. Without a locale: the English version, else the first one."""
    if locale is not None:
        return versions.get(locale) or versions.get(locale.partition("_")[0])
    return versions.get(_DEFAULT_LOCALE) or next(iter(versions.values()), None)


def find_policy(request: MessageCreate, lookup: WorkspaceLookup, template_slug: str) -> Mapping[str, Any] | None:
    """Return the policy that the request names, else the template's, else the workspace's. Raises Unprocessable."""
    if request.policy is not None:
        named = next((row for row in lookup.policies if request.policy in (row["slug"], row["id"])), None)
        if named is None:
            raise reference_not_found("policy")
        return named
    of_template = next((row for row in lookup.policies if row["applies_to"].get("template") == template_slug), None)
    return of_template or next((row for row in lookup.policies if not row["applies_to"].get("template")), None)
