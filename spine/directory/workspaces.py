"""Creation of organisations and workspaces, each workspace with its first API key and first rows."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from spine.directory.api_keys import ApiKeyRow, key_columns, store_hash
from spine.kernel import ids
from spine.kernel.keys import Env, mint_key
from spine.kernel.platform import WorkspaceSeed


class OrganisationOut(BaseModel):
    id: str
    object: str = "organisation"
    name: str
    email: str
    email_confirmed: bool = Field(
        default=True, description="False until the address is confirmed; the live key works from then on."
    )


class WorkspaceWithKey(BaseModel):
    """A new workspace and the one key that opens it."""

    workspace_id: str
    api_key: str = Field(description="Shown this once; keep it now.")


class SignupOut(BaseModel):
    organisation: OrganisationOut
    test: WorkspaceWithKey
    live: WorkspaceWithKey


async def create_organisation(
    session: AsyncSession,
    name: str,
    email: str,
    seeds: Sequence[WorkspaceSeed],
    *,
    confirmation_hash: bytes | None = None,
) -> SignupOut:
    """Create an organisation with a test and a live workspace, in the session's transaction.

    Each seed returns the first rows of a workspace. With the hash of a token, its live key waits for the token.
    """
    confirmed = confirmation_hash is None
    organisation = OrganisationOut(id=ids.mint("org"), name=name, email=email, email_confirmed=confirmed)
    await session.execute(
        text(
            "INSERT INTO spine.organisations (id, name, email, email_confirmed_at, confirmation_hash)"
            " VALUES (:id, :name, :email, CASE WHEN :confirmed THEN now() END, :hash)"
        ),
        {"id": organisation.id, "name": name, "email": email, "confirmed": confirmed, "hash": confirmation_hash},
    )
    return SignupOut(
        organisation=organisation,
        test=await _create_workspace(session, organisation.id, "test", seeds),
        live=await _create_workspace(session, organisation.id, "live", seeds),
    )


async def _create_workspace(
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
    session.add_all(row for seed in seeds for row in seed(workspace_id, env))
    await session.flush()
    await store_hash(session, workspace_id, key_id, key)
    return WorkspaceWithKey(workspace_id=workspace_id, api_key=key)
