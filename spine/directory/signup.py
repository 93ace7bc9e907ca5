"""Signing up: one call makes an organisation, its test and live workspaces, and a key to each (ruling X18)."""

from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import APIRouter, Request
from pydantic import BaseModel, EmailStr, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from spine.directory.api_keys import ApiKeyRow, key_columns
from spine.kernel import ids
from spine.kernel.errors import Forbidden
from spine.kernel.keys import Env, mint_key
from spine.kernel.platform import Platform, WorkspaceSeed
from spine.kernel.resource import Body, Name
from spine.kernel.routes import ApiRoute, declares

_log = structlog.get_logger(__name__)


class SignupBody(Body):
    name: Name
    email: EmailStr


class OrganisationOut(BaseModel):
    id: str
    object: str = "organisation"
    name: str
    email: str


class WorkspaceWithKey(BaseModel):
    """A new workspace and the one key that opens it."""

    workspace_id: str
    api_key: str = Field(description="Shown this once; keep it now.")


class SignupOut(BaseModel):
    organisation: OrganisationOut
    test: WorkspaceWithKey
    live: WorkspaceWithKey


async def create_organisation(
    session: AsyncSession, name: str, email: str, seeds: Sequence[WorkspaceSeed]
) -> SignupOut:
    """Create an organisation with both workspaces in the session's transaction. `seeds` give each its first rows."""
    organisation = OrganisationOut(id=ids.mint("org"), name=name, email=email)
    await session.execute(
        text("INSERT INTO spine.organisations (id, name, email) VALUES (:id, :name, :email)"),
        {"id": organisation.id, "name": name, "email": email},
    )
    return SignupOut(
        organisation=organisation,
        test=await _workspace(session, organisation.id, "test", seeds),
        live=await _workspace(session, organisation.id, "live", seeds),
    )


async def _workspace(
    session: AsyncSession, organisation_id: str, env: Env, seeds: Sequence[WorkspaceSeed]
) -> WorkspaceWithKey:
    workspace_id, key, key_id = ids.mint("wsp"), mint_key(env), ids.mint("key")
    values: dict[str, Any] = {"ws": workspace_id, "org": organisation_id, "env": env}
    await session.execute(text("SELECT set_config('app.ws', :ws, true)"), values)
    await session.execute(
        text("INSERT INTO spine.workspaces (workspace_id, organisation_id, env) VALUES (:ws, :org, :env)"), values
    )
    now = ids.created_at(key_id)
    row = ApiKeyRow(
        workspace_id=workspace_id,
        id=key_id,
        name="first key",
        scopes=["*"],
        created_at=now,
        updated_at=now,
        **key_columns(key),
    )
    session.add(row)
    session.add_all(row for rows_of in seeds for row in rows_of(workspace_id, env))
    await session.flush()
    return WorkspaceWithKey(workspace_id=workspace_id, api_key=key)


router = APIRouter(prefix="/v1", tags=["signup"], route_class=ApiRoute)


@router.post(
    "/signup", status_code=201, openapi_extra=declares("", public=True), summary="Sign up: both keys in one call"
)
async def signup(body: SignupBody, request: Request) -> SignupOut:
    platform: Platform = request.app.state.platform
    if platform.http.signup != "open":
        raise Forbidden(
            "signing up is closed here; the operator makes keys with `spine keys create`", code="signup_closed"
        )
    async with AsyncSession(platform.engine, expire_on_commit=False) as session, session.begin():
        made = await create_organisation(session, body.name, body.email, platform.workspace_seeds)
    _log.info("organisation founded", organisation_id=made.organisation.id)
    return made
