"""Saved replies of tickets: texts that a team answers with again and again. A recipe: it is not served by Spine."""

from typing import Annotated

from pydantic import Field, StringConstraints
from sqlalchemy.orm import Mapped

from spine.kernel import store
from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, Name, PatchBody, Resource, ResourceOut, TenantRow

ReplyText = Annotated[
    str, StringConstraints(min_length=1, max_length=10_000), Field(description="What the contact is answered.")
]
AuthorId = Annotated[str, StringConstraints(max_length=64), Field(description="The user who looks after the text.")]


class SavedReplyRow(TenantRow):
    __tablename__ = "saved_replies"
    title: Mapped[str]
    body: Mapped[str]
    author_id: Mapped[str]

    constraint_errors = {  # read-only
        "saved_replies_title": lambda: Conflict(
            "a saved reply with this title exists", code="saved_reply_exists", param="title"
        ),
        "saved_replies_author": lambda: store.reference_not_found("author_id"),
    }


class SavedReplyCreate(Body):
    title: Name
    body: ReplyText
    author_id: AuthorId
    metadata: Metadata = {}


class SavedReplyUpdate(PatchBody):
    title: Name = ""
    body: ReplyText = ""
    author_id: AuthorId = ""
    metadata: Metadata = {}


class SavedReplyOut(ResourceOut):
    object: str = "saved_reply"
    title: str
    body: str
    author_id: str


CREATED = EventType("saved_reply.created", SavedReplyOut, "A saved reply was created.")
UPDATED = EventType("saved_reply.updated", SavedReplyOut, "A saved reply was changed.")
SAVED_REPLY = Resource(
    noun="saved_reply",
    row=SavedReplyRow,
    create=SavedReplyCreate,
    update=SavedReplyUpdate,
    out=SavedReplyOut,
    scope="tickets",
    events=(CREATED, UPDATED),
)

router = crud_router(SAVED_REPLY, "tickets", "create", "get", "list", "update")
