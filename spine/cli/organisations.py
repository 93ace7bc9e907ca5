"""Create organisations with their first API keys, and API keys of a workspace, directly in the database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import asyncpg
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from spine.cli.errors import MISUSED, Failure
from spine.directory.api_keys import (
    CREATED,
    ApiKeyCreate,
    ApiKeyOut,
    ApiKeyRow,
    ApiKeyWithSecret,
    key_columns,
    store_hash,
)
from spine.directory.signup import SignupBody
from spine.directory.workspaces import OrganisationOut, SignupOut, create_organisation
from spine.kernel import ids
from spine.kernel.database import open_engine
from spine.kernel.events import SYSTEM, event_body
from spine.kernel.keys import mint_key
from spine.notifications.provider_accounts import sandbox_accounts


@asynccontextmanager
async def _transaction(
    database_url: str, role: Literal["spine_app", "spine_worker"] = "spine_app"
) -> AsyncIterator[AsyncSession]:
    engine = open_engine(database_url, role, "spine cli", 1)
    try:
        async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
            yield session
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error
        raise Failure(f"the database at DATABASE_URL does not do it: {cause}; `spine doctor` says more") from error
    finally:
        await engine.dispose()


def _validated(model: type[Any], **values: Any) -> Any:
    try:
        return model(**values)
    except ValidationError as error:
        detail = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise Failure(detail, exit_code=MISUSED) from error


async def create_organisation_and_keys(
    database_url: str, name: str, email: str, key_name: str, scopes: list[str]
) -> Any:
    """Create an organisation, its two workspaces and one key for each, as signup does. Raises Failure."""
    body = _validated(SignupBody, name=name, email=email)
    key_body = _validated(ApiKeyCreate, name=key_name, scopes=scopes)
    async with _transaction(database_url) as session:
        created: SignupOut = await create_organisation(session, body.name, body.email, (sandbox_accounts,))
        for workspace in (created.test, created.live):
            await _set_workspace(session, workspace.workspace_id)
            await session.execute(
                text("UPDATE spine.api_keys SET name = :name, scopes = :scopes WHERE workspace_id = :ws"),
                {"name": key_body.name, "scopes": key_body.scopes, "ws": workspace.workspace_id},
            )
    return created.model_dump(mode="json")


async def confirm_organisation(database_url: str, organisation_id: str) -> Any:
    """Confirm an organisation's e-mail address for it, so that its live keys work. Raises Failure."""
    async with _transaction(database_url, "spine_worker") as session:
        found = await session.execute(
            text(
                "UPDATE spine.organisations SET email_confirmed_at = coalesce(email_confirmed_at, now())"
                " WHERE id = :id RETURNING id, name, email"
            ),
            {"id": organisation_id},
        )
        row = found.mappings().one_or_none()
    if row is None:
        raise Failure(f"there is no organisation {organisation_id}")
    return OrganisationOut(**row).model_dump(mode="json")


async def create_workspace_key(database_url: str, workspace_id: str, name: str, scopes: list[str]) -> Any:
    """Create a key for a workspace whose keys are lost, and publish the event that every new key has. Raises Failure."""
    key_body = _validated(ApiKeyCreate, name=name, scopes=scopes)
    async with _transaction(database_url) as session:
        await _set_workspace(session, workspace_id)
        env = await session.scalar(
            text("SELECT env FROM spine.workspaces WHERE workspace_id = :ws"), {"ws": workspace_id}
        )
        if env is None:
            raise Failure(f"there is no workspace {workspace_id}")
        key, id = mint_key(env), ids.mint(ids.PREFIXES["api_key"])
        now = ids.created_at(id)
        row = ApiKeyRow(workspace_id=workspace_id, id=id, created_at=now, updated_at=now)
        for column, value in {"name": key_body.name, "scopes": key_body.scopes, **key_columns(key)}.items():
            setattr(row, column, value)
        session.add(row)
        await session.flush()
        await store_hash(session, workspace_id, id, key)
        out = ApiKeyOut.model_validate(row)
        await _publish_created(session, workspace_id, env, out)
    return ApiKeyWithSecret(**out.model_dump(), api_key=key).model_dump(mode="json")


async def _set_workspace(session: AsyncSession, workspace_id: str) -> None:
    """Limit the rest of the transaction to the rows of this workspace."""
    await session.execute(text("SELECT set_config('app.ws', :ws, true)"), {"ws": workspace_id})


async def _publish_created(session: AsyncSession, workspace_id: str, env: str, key: ApiKeyOut) -> None:
    event_id, request_id = ids.mint(ids.PREFIXES["event"]), ids.mint(ids.PREFIXES["request"])
    body = event_body(
        id=event_id,
        type=CREATED.name,
        at=ids.created_at(event_id),
        workspace_id=workspace_id,
        env=env,
        request_id=request_id,
        actor=SYSTEM,
        sequence=key.version,
        data=key.model_dump_json().encode(),
    )
    await session.execute(
        text("SELECT spine.events_put(cast(:ids AS text[]), cast(:types AS text[]), cast(:bodies AS bytea[]))"),
        {"ids": [event_id], "types": [CREATED.name], "bodies": [body]},
    )
