"""Public slugs: the directory of hosted pages and forms, which are found by their slug before a workspace is known.

A slug is unique per kind in the whole installation, so that its URL leads to one object.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import asyncpg
from pydantic import Field, StringConstraints
from sqlalchemy import text

from spine.kernel.errors import Conflict
from spine.kernel.keys import Env
from spine.kernel.unit_of_work import UnitOfWork

Kind = Literal["page", "form"]
PATTERN: Final = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}$")
PublicSlug = Annotated[
    str, StringConstraints(pattern=PATTERN.pattern), Field(description="The last part of the public URL.")
]

_CLAIM: Final = text(
    "INSERT INTO spine.public_slugs (kind, slug, workspace_id, subject_id) VALUES (:kind, :slug, :ws, :id) "
    "ON CONFLICT DO NOTHING RETURNING slug"
)
_FIND: Final = "SELECT * FROM spine.public_slug_find($1, $2)"


@dataclass(frozen=True, slots=True)
class PublicSubject:
    """The object that a slug leads to, and the workspace that it is in."""

    workspace_id: str
    organisation_id: str
    env: Env
    subject_id: str


async def claim(unit: UnitOfWork, kind: Kind, slug: str, subject_id: str) -> None:
    """Let the slug lead to the subject. Raises Conflict `slug_taken` if it leads anywhere already, whoever has it."""
    if (
        await unit.session.scalar(_CLAIM, {"kind": kind, "slug": slug, "ws": unit.workspace_id, "id": subject_id})
        is None
    ):
        raise Conflict("this slug is taken; choose another one", code="slug_taken", param="slug")


async def find(pool: "asyncpg.Pool[asyncpg.Record]", kind: Kind, slug: str) -> PublicSubject | None:
    """Return what a slug leads to, in whichever workspace; None if it leads nowhere."""
    if not PATTERN.match(slug):
        return None
    row = await pool.fetchrow(_FIND, kind, slug)
    return None if row is None else PublicSubject(**row)
