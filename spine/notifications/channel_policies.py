"""Channel policies: the channels in their order, and how long each step waits. They are rows, not code (N-03)."""

from datetime import time
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import Path
from pydantic import AfterValidator, Field, StringConstraints, model_validator
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from policies.fallback import unmeetable
from policies.fallback_values import Policy, Step
from policies.windows import QuietHours
from spine.kernel import ids, store, timeline
from spine.kernel.errors import Conflict, Unprocessable
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, Out, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, new_router, version_of
from spine.kernel.store import Page
from spine.kernel.timeline import Change
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.provider_kinds import Channel
from spine.notifications.templates import SLUG, Slug

MAX_WAIT_S: Final = 7 * 24 * 3600
MAX_DEADLINE_S: Final = 30 * 24 * 3600
_AUDITED_FIELDS: Final = ("steps", "deadline_s", "quiet_hours", "applies_to", "metadata")


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("give the name of a zone of the IANA database, such as Asia/Kolkata") from error
    return name


WallClock = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Zone = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_known_zone)]
ProviderName = Annotated[
    str, StringConstraints(min_length=1, max_length=200), Field(description="An account's id or name, or a kind.")
]


class PolicyRow(TenantRow):
    __tablename__ = "channel_policies"
    slug: Mapped[str]
    steps: Mapped[list[Any]]
    deadline_s: Mapped[int]
    quiet_hours: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    applies_to: Mapped[dict[str, Any]]

    constraint_errors = {  # read-only
        "channel_policies_applies": lambda: Conflict(
            "another policy applies to this already", code="policy_exists", param="applies_to"
        ),
    }


class PolicyStep(Body):
    channel: Channel
    providers: Annotated[list[ProviderName], Field(max_length=20)] | None = None
    success: Literal["sent", "delivered"] = Field(
        default="delivered", description="What ends the search: accepted by a provider, or confirmed by a receipt."
    )
    wait_s: int = Field(default=300, ge=0, le=MAX_WAIT_S, description="How long success is waited for.")


class QuietHoursBody(Body):
    """Wall-clock hours in which nothing is sent, up to but not at `end`; over midnight where `end` is earlier."""

    start: WallClock
    end: WallClock
    time_zone: Zone = "Asia/Kolkata"
    then: Literal["wait", "skip"] = Field(
        default="wait", description="wait: until they end; skip: on to the next step."
    )

    @model_validator(mode="after")
    def _some_hours_are_left(self) -> "QuietHoursBody":
        if self.start == self.end:
            raise ValueError("start and end are the same time")
        return self


class AppliesTo(Body):
    template: Slug | None = None


class PolicyPut(Body):
    steps: Annotated[list[PolicyStep], Field(min_length=1, max_length=10)]
    deadline_s: int = Field(ge=1, le=MAX_DEADLINE_S, description="Bounds the whole, from the message's start.")
    quiet_hours: QuietHoursBody | None = None
    applies_to: AppliesTo = Field(
        default=AppliesTo(), description="A template's slug; empty for the workspace's default."
    )
    metadata: Metadata = {}


class PolicyStepOut(Out):
    channel: str
    providers: list[str] | None = None
    success: str
    wait_s: int


class QuietHoursOut(Out):
    start: str
    end: str
    time_zone: str
    then: str


class AppliesToOut(Out):
    template: str | None = None


class PolicyOut(ResourceOut):
    object: str = "channel_policy"
    slug: str
    steps: list[PolicyStepOut]
    deadline_s: int
    quiet_hours: QuietHoursOut | None
    applies_to: AppliesToOut


UPDATED = EventType("policy.updated", PolicyOut, "A channel policy was made, or a new version of it.")
POLICY = Resource(
    noun="channel_policy",
    row=PolicyRow,
    create=PolicyPut,
    update=None,
    out=PolicyOut,
    scope="notifications",
    events=(UPDATED,),
)

router = new_router("/notifications/v1/channel_policies", "channel_policies", POLICY)


def parse_policy(strategy: dict[str, Any]) -> Policy:
    """Return a message's strategy, or a policy's columns, as the fallback policy takes it."""
    quiet = strategy.get("quiet_hours")
    return Policy(
        tuple(
            Step(step["channel"], step["success"], step["wait_s"], tuple(step.get("providers") or ()))
            for step in strategy["steps"]
        ),
        strategy["deadline_s"],
        QuietHours(
            time.fromisoformat(quiet["start"]), time.fromisoformat(quiet["end"]), quiet["time_zone"], quiet["then"]
        )
        if quiet
        else None,
    )


def check_deadline(policy: Policy, param: str = "deadline_s") -> None:
    """Raise Unprocessable `policy_unmeetable` if the last step can never be taken before the deadline."""
    why = unmeetable(policy)
    if why is not None:
        raise Unprocessable(why, code="policy_unmeetable", param=param)


async def get_policy_row(unit: UnitOfWork, slug_or_id: str) -> PolicyRow:
    """Return the policy with this slug or id. Raises NotFound."""
    if ids.is_id(slug_or_id, POLICY.prefix):
        found: PolicyRow = await store.get(unit, POLICY, slug_or_id)
        return found
    query = select(PolicyRow).where(PolicyRow.workspace_id == unit.workspace_id, PolicyRow.slug == slug_or_id)
    is_slug = SLUG.fullmatch(slug_or_id) is not None
    row = await unit.session.scalar(query) if is_slug else None
    if row is None:
        raise store.not_found(POLICY)
    return row


@router.put(
    "/{slug}",
    openapi_extra=declares("notifications:write", UPDATED),
    summary="Make a channel policy, or its next version",
)
async def put_channel_policy(
    slug: Annotated[Slug, Path()], body: PolicyPut, unit: CurrentUnit, if_match: IfMatch = None
) -> PolicyOut:
    values: dict[str, Any] = {
        "steps": [step.model_dump(mode="json", exclude_none=True) for step in body.steps],
        "deadline_s": body.deadline_s,
        "quiet_hours": body.quiet_hours.model_dump(mode="json") if body.quiet_hours else None,
        "applies_to": body.applies_to.model_dump(exclude_none=True),
        "meta": body.metadata,
    }
    check_deadline(parse_policy(values))
    query = select(PolicyRow).where(PolicyRow.workspace_id == unit.workspace_id, PolicyRow.slug == slug)
    row = await unit.session.scalar(query.with_for_update())
    before: dict[str, Any] = {}
    if row is None:
        row = await store.create(unit, POLICY, slug=slug, **values)
    else:
        before = PolicyOut.model_validate(row).model_dump(mode="json")
        if not await store.change(unit, POLICY, row, values, version_of(if_match)):
            return PolicyOut.model_validate(row)
    out = PolicyOut.model_validate(row)
    unit.emit(UPDATED, out, sequence=row.version)
    after = out.model_dump(mode="json")
    changes = [
        Change(field=name, old=before.get(name), new=after[name])
        for name in _AUDITED_FIELDS
        if before.get(name) != after[name]
    ]
    await timeline.append(unit, row.id, "policy.updated", changes=changes, detail={"version": row.version})
    return out


@router.get("/{slug}", openapi_extra=declares("notifications:read"), summary="Read a channel policy, by slug or id")
async def get_channel_policy(slug: str, unit: CurrentUnit) -> PolicyOut:
    return PolicyOut.model_validate(await get_policy_row(unit, slug))


@router.get("", openapi_extra=declares("notifications:read"), summary="List channel policies, newest first")
async def list_channel_policies(unit: CurrentUnit, paging: Paging) -> Page[PolicyOut]:
    return await store.page(unit, POLICY, paging.cursor, paging.limit)
