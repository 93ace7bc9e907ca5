"""Messages and attempts: their rows, and the models that callers see."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy import BigInteger, Integer, SmallInteger
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from spine.kernel.resource import Out, ResourceOut, Row, TenantRow


class Status(StrEnum):
    """How far a message got. `sending` again after `sent`: the next step, when no receipt came in time."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"
    CANCELLED = "cancelled"


class MessageRow(TenantRow):
    __tablename__ = "messages"
    contact_id: Mapped[str | None]
    addresses: Mapped[dict[str, Any]]
    template_id: Mapped[str]
    template: Mapped[str]
    template_version: Mapped[int]
    locale: Mapped[str]
    category: Mapped[str]
    vars: Mapped[dict[str, Any]]
    policy_id: Mapped[str | None]
    policy_slug: Mapped[str | None]
    policy_version: Mapped[int | None]
    policy: Mapped[dict[str, Any]]
    warnings: Mapped[list[Any]] = mapped_column(JSONB)
    status: Mapped[str]
    channel: Mapped[str | None]
    provider: Mapped[str | None]
    provider_account_id: Mapped[str | None]
    receipt_supported: Mapped[bool | None]
    sent_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    read_at: Mapped[datetime | None]
    duplicate_possible: Mapped[bool] = mapped_column(default=False)
    late_success: Mapped[bool] = mapped_column(default=False)
    reasons: Mapped[list[Any]] = mapped_column(JSONB)
    send_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    sequence: Mapped[int]
    request_id: Mapped[str]


class AttemptRow(Row):
    __tablename__ = "attempts"
    workspace_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    message_id: Mapped[str]
    step: Mapped[int] = mapped_column(SmallInteger)
    number: Mapped[int] = mapped_column(SmallInteger)
    channel: Mapped[str]
    provider: Mapped[str]
    provider_account_id: Mapped[str]
    state: Mapped[str]
    outcome: Mapped[str | None]
    failure: Mapped[str | None] = mapped_column("class")
    provider_code: Mapped[str | None]
    provider_http: Mapped[int | None] = mapped_column(Integer)
    provider_message_id: Mapped[str | None]
    late_success: Mapped[bool]
    units: Mapped[int | None] = mapped_column(SmallInteger)
    cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    read_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]


class Caution(BaseModel):
    """Something about a message that may not go as you think."""

    code: str
    detail: str
    channel: str | None = None


class Reason(BaseModel):
    """Why a step of a message came to nothing."""

    step: int = Field(description="Of the strategy, from 0.")
    channel: str
    reason: str = Field(description="A class of failure, or why the step was passed over.")
    attempt_id: str | None = None
    provider: str | None = None
    provider_code: str | None = None
    detail: str | None = None


class ReceiptOut(BaseModel):
    """Whether, and when, a provider confirmed the delivery (ruling X10)."""

    supported: bool | None = Field(description="Null until a provider is chosen.")
    delivered_at: datetime | None
    read_at: datetime | None


class PolicyRef(BaseModel):
    """The policy that applied, as it was then; null fields for the built-in one."""

    id: str | None
    slug: str | None
    version: int | None


class StrategyStep(Out):
    """One step of the strategy in force for a message."""

    channel: str
    providers: list[str] | None = None
    success: str
    wait_s: int


class MessageData(ResourceOut):
    """A message, without its attempts."""

    object: str = "message"
    contact_id: str | None
    to: dict[str, str] = Field(description="The address on each channel of the strategy.")
    template: str
    template_id: str
    template_version: int
    locale: str
    category: str
    channels: list[str] = Field(description="In order of preference.")
    strategy: Literal["fallback"] = "fallback"
    steps: list[StrategyStep]
    policy: PolicyRef
    vars: dict[str, Any]
    status: Status
    channel: str | None = Field(description="The channel that carried it last.")
    provider: str | None
    receipt: ReceiptOut
    reasons: list[Reason]
    warnings: list[Caution]
    duplicate_possible: bool
    late_success: bool = Field(description="Delivered after it had been given up, or after a reported failure.")
    send_at: datetime | None
    deadline_at: datetime
    ended_at: datetime | None
    audit_url: str


class AttemptOut(Out):
    """One call to one provider."""

    id: str
    object: str = "attempt"
    step: int
    number: int
    channel: str
    provider: str
    provider_account_id: str
    status: str = Field(validation_alias="state")
    outcome: str | None = Field(description="accepted, rejected or unknown; null while the call is under way.")
    class_: str | None = Field(alias="class", validation_alias="failure", description="Of a rejection.")
    provider_code: str | None
    provider_http: int | None
    provider_message_id: str | None
    late_success: bool
    units: int | None = Field(description="What is paid for: the parts of an SMS, else 1.")
    cost_micros: int | None = Field(description="In millionths of your currency, where its account has a price.")
    started_at: datetime
    ended_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    failed_at: datetime | None


class MessageOut(MessageData):
    attempts: list[AttemptOut]


_REASON_DEFAULTS: Final = {"attempt_id": None, "provider": None, "provider_code": None, "detail": None}


def message_fields(row: Any) -> dict[str, Any]:
    """Return the fields of MessageData from a message's row (a mapping of columns), as plain values."""
    steps = row["policy"]["steps"]
    return {
        "id": row["id"],
        "object": "message",
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "version": row["version"],
        "metadata": row["metadata"],
        "contact_id": row["contact_id"],
        "to": row["addresses"],
        "template": row["template"],
        "template_id": row["template_id"],
        "template_version": row["template_version"],
        "locale": row["locale"],
        "category": row["category"],
        "channels": [step["channel"] for step in steps],
        "strategy": "fallback",
        "steps": [{"providers": None, **step} for step in steps],
        "policy": {"id": row["policy_id"], "slug": row["policy_slug"], "version": row["policy_version"]},
        "vars": row["vars"],
        "status": row["status"],
        "channel": row["channel"],
        "provider": row["provider"],
        "receipt": {
            "supported": row["receipt_supported"],
            "delivered_at": row["delivered_at"],
            "read_at": row["read_at"],
        },
        "reasons": [{**_REASON_DEFAULTS, **reason} for reason in row["reasons"]],
        "warnings": row["warnings"],
        "duplicate_possible": row["duplicate_possible"],
        "late_success": row["late_success"],
        "send_at": row["send_at"],
        "deadline_at": row["deadline_at"],
        "ended_at": row["ended_at"],
        "audit_url": f"/notifications/v1/messages/{row['id']}/audit",
    }
