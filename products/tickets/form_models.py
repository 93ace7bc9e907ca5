"""Public forms as data: their look, their topics, and the pages that may frame them (T-13)."""

import re
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, StringConstraints
from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from products.tickets.ticket_models import Topic
from spine.kernel.brands import Brand, BrandOut
from spine.kernel.public_slugs import PublicSlug
from spine.kernel.resource import Body, Metadata, Name, PatchBody, ResourceOut, TenantRow

_ORIGIN: Final = re.compile(r"https?://([a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(:[0-9]{1,5})?")


def _origin(text: str) -> str:
    """Return the origin in lower case, as browsers send it. Raises ValueError for anything else."""
    origin = text.lower().removesuffix("/")
    if not _ORIGIN.fullmatch(origin):
        raise ValueError("give an origin: scheme, host and port if it has one, such as https://www.example.com")
    return origin


def _distinct(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


Origin = Annotated[str, StringConstraints(min_length=1, max_length=300), AfterValidator(_origin)]
Topics = Annotated[
    list[Topic], Field(max_length=50, description="What the visitor can choose."), AfterValidator(_distinct)
]
Origins = Annotated[
    list[Origin],
    Field(max_length=50, description="Pages that may embed the form, by their origin."),
    AfterValidator(_distinct),
]


class FormStatus(StrEnum):
    """A disabled form is not served."""

    ACTIVE = "active"
    DISABLED = "disabled"


class FormRow(TenantRow):
    __tablename__ = "forms"
    slug: Mapped[str]
    title: Mapped[str]
    topics: Mapped[list[str]] = mapped_column(ARRAY(Text))
    brand: Mapped[dict[str, Any]] = mapped_column(JSONB)
    allowed_origins: Mapped[list[str]] = mapped_column(ARRAY(Text))
    status: Mapped[str] = mapped_column(default=FormStatus.ACTIVE)


class FormCreate(Body):
    slug: PublicSlug
    title: Name
    topics: Topics = []
    brand: Annotated[Brand | None, Field(description="Null: the title as the name.")] = None
    allowed_origins: Origins = []
    metadata: Metadata = {}


class FormUpdate(PatchBody):
    title: Name = ""
    topics: Topics = []
    brand: Brand = Brand(name="-")
    allowed_origins: Origins = []
    metadata: Metadata = {}


class FormOut(ResourceOut):
    object: str = "form"
    slug: str
    url: str = Field(default="", description="The form's public address.")
    title: str
    topics: list[str]
    brand: BrandOut
    allowed_origins: list[str]
    status: FormStatus
