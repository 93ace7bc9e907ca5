"""What a resource is: one frozen definition, from which routes, OpenAPI, event types, scopes and tools are read."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

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
"""A time as callers give it: RFC 3339 with its zone; here it is in UTC. Numbers and bare dates are refused."""


class Xid8(UserDefinedType[str]):
    """A transaction id that never wraps."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The column's type in SQL."""
        return "xid8"


class Row(DeclarativeBase):
    """The root of all rows."""

    metadata = MetaData(schema="spine")
    type_annotation_map = {  # SQLAlchemy reads a plain dictionary
        str: Text(collation="C"),
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        dict[str, str]: JSONB,
        list[Any]: JSONB,
        int: Integer,
    }


class TenantRow(Row):
    """What every resource's row has. `version` rises with each change; `xid` is the transaction that made the row."""

    __abstract__ = True
    constraint_errors: ClassVar[Mapping[str, Callable[[], SpineError]]] = {}
    """What a caller is told when a constraint of this name is broken."""

    workspace_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)
    meta: Mapped[dict[str, str]] = mapped_column("metadata", default=dict)
    xid: Mapped[str] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))


_JSON_SCALARS: Final = frozenset({"int", "float", "bool"})


def _take_json_at_its_word(schema: Any) -> None:
    """Have numbers and truths accepted as JSON writes them, so that "5" and true are no integers, as OpenAPI says."""
    if isinstance(schema, dict):
        kind = schema.get("type")
        if isinstance(kind, str) and kind in _JSON_SCALARS:  # among fields, "type" may be the name of one
            schema["strict"] = True
        for key, part in schema.items():
            if key not in ("metadata", "default"):
                _take_json_at_its_word(part)
    elif isinstance(schema, (list, tuple)):
        for part in schema:
            _take_json_at_its_word(part)


class Body(BaseModel):
    """What a caller sends: unknown fields are refused by name, never silently dropped."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _take_json_at_its_word(schema)
        return schema


def _without_defaults(schema: dict[str, Any]) -> None:
    for part in schema.get("properties", {}).values():
        part.pop("default", None)


class PatchBody(Body):
    """What a caller sends to change something: what is left out stays as it is, so no field has a default to tell of."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)


class Out(BaseModel):
    """What a caller gets; read off a row's attributes."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True)


class ResourceOut(Out):
    """What every resource shows (products.md)."""

    id: str
    object: str
    created_at: datetime
    updated_at: datetime
    version: int
    metadata: dict[str, str] = Field(validation_alias="meta")


class NoStates(StrEnum):
    """For resources that have no state of their own."""


def plural(noun: str) -> str:
    """A noun's plural, as paths write it."""
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource, as data: no callables and no flags. What does not fit is written out by hand in its room."""

    noun: str
    row: type[TenantRow]
    create: type[Body] | None
    update: type[Body] | None
    out: type[ResourceOut]
    scope: str
    events: tuple[EventType, ...] = ()
    states: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """From each state, the states that a move may lead to."""

    @property
    def prefix(self) -> str:
        """The prefix of its ids."""
        return PREFIXES[self.noun]

    @property
    def plural(self) -> str:
        """Its name in paths."""
        return plural(self.noun)

    def event(self, verb: str) -> EventType | None:
        """Its event for a verb in the past tense, where it declares one."""
        name = f"{self.noun}.{verb}"
        return next((event for event in self.events if event.name == name), None)
