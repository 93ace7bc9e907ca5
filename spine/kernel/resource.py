"""Resources: one frozen definition each, from which routes, OpenAPI, event types, scopes and tools are derived."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StringConstraints,
)
from pydantic_core import CoreSchema
from sqlalchemy import DateTime, Integer, MetaData, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

from spine.kernel.errors import SpineError
from spine.kernel.events import EventType
from spine.kernel.ids import PREFIXES

Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(max_length=500)],
    ],
    Field(max_length=50, description="Up to 50 short texts of your own."),
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _as_rfc3339(value: object) -> object:
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise ValueError("give a time as RFC 3339 with its zone, such as 2026-01-02T03:04:05Z")


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC this time lies outside the years 1 to 9999") from error


Timestamp = Annotated[
    AwareDatetime, BeforeValidator(_as_rfc3339, json_schema_input_type=AwareDatetime), AfterValidator(_in_utc)
]
"""A time from a caller: RFC 3339 with its zone, converted to UTC. Numbers and bare dates are refused."""


class Xid8(UserDefinedType[str]):
    """PostgreSQL's `xid8`: a transaction id of 64 bits, which never wraps."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the column's type in SQL."""
        return "xid8"


class Row(DeclarativeBase):
    """The declarative base of all rows."""

    metadata = MetaData(schema="spine")
    type_annotation_map = {  # SQLAlchemy demands a plain dictionary
        str: Text(collation="C"),
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        dict[str, str]: JSONB,
        list[Any]: JSONB,
        int: Integer,
    }


class TenantRow(Row):
    """The columns of every resource. `version` rises with each change; `xid` is the transaction that inserted the row."""

    __abstract__ = True
    constraint_errors: ClassVar[Mapping[str, Callable[[], SpineError]]] = {}
    """The error that a caller gets for a violated constraint, by the constraint's name."""

    workspace_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)
    meta: Mapped[dict[str, str]] = mapped_column("metadata", default=dict)
    xid: Mapped[str] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))


_JSON_SCALARS: Final = frozenset({"int", "float", "bool"})


def _make_scalars_strict(schema: Any) -> None:
    """Accept numbers and booleans only in their JSON types, as OpenAPI says: "5" and true are no integers."""
    if isinstance(schema, dict):
        kind = schema.get("type")
        if isinstance(kind, str) and kind in _JSON_SCALARS:  # in a dictionary of fields, "type" may be a field
            schema["strict"] = True
        for key, part in schema.items():
            if key not in ("metadata", "default"):
                _make_scalars_strict(part)
    elif isinstance(schema, (list, tuple)):
        for part in schema:
            _make_scalars_strict(part)


class Body(BaseModel):
    """A request body. Unknown fields are refused by name, never silently dropped."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _make_scalars_strict(schema)
        return schema


def _without_defaults(schema: dict[str, Any]) -> None:
    for part in schema.get("properties", {}).values():
        part.pop("default", None)


class PatchBody(Body):
    """The body of a PATCH. A field that is left out keeps its value, so OpenAPI shows no defaults."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)


class Out(BaseModel):
    """A response body, read from a row's attributes."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True)


class ResourceOut(Out):
    """The fields that every resource shows (products.md)."""

    id: str
    object: str
    created_at: datetime
    updated_at: datetime
    version: int
    metadata: dict[str, str] = Field(validation_alias="meta")


class DeletedOut(BaseModel):
    """What is left of a deleted resource."""

    id: str
    object: str
    deleted: Literal[True] = True


def plural(noun: str) -> str:
    """Return the plural of a noun, as it is written in paths."""
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource, as data: no callables and no flags. A route that differs is written by hand in the resource's module."""

    noun: str
    row: type[TenantRow]
    create: type[Body] | None
    update: type[Body] | None
    out: type[ResourceOut]
    scope: str
    events: tuple[EventType, ...] = ()
    states: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The allowed transitions: from each state, the states that may follow."""

    @property
    def prefix(self) -> str:
        """The prefix of the resource's ids."""
        return PREFIXES[self.noun]

    @property
    def plural(self) -> str:
        """The resource's name in paths."""
        return plural(self.noun)

    def event(self, verb: str) -> EventType | None:
        """Return the resource's event for a verb in the past tense, or None if it declares none."""
        name = f"{self.noun}.{verb}"
        return next((event for event in self.events if event.name == name), None)
