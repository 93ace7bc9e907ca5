"""What an operator makes in the database itself: an organisation with its first keys, a further key for a workspace."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from spine.cli.errors import MISUSED, Failure
from spine.directory.api_keys import CREATED, ApiKeyCreate, ApiKeyOut, ApiKeyRow, ApiKeyWithSecret, key_columns
from spine.directory.signup import SignupBody
from spine.directory.workspaces import SignupOut, create_organisation
from spine.kernel import ids
from spine.kernel.database import open_engine
from spine.kernel.events import SYSTEM, event_body
from spine.kernel.keys import mint_key
from spine.notifications.provider_accounts import sandbox_accounts


@asynccontextmanager
async def _transaction(database_url: str) -> AsyncIterator[AsyncSession]:
    engine = open_engine(database_url, "spine_app", "spine cli", 1)
    try:
        async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
            yield session
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error
        raise Failure(f"the database at DATABASE_URL does not do it: {cause}; `spine doctor` says more") from error
    finally:
        await engine.dispose()


def _checked(model: type[Any], **values: Any) -> Any:
    try:
        return model(**values)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise Failure(told, exit_code=MISUSED) from error


async def found_organisation(database_url: str, name: str, email: str, key_name: str, scopes: list[str]) -> Any:
    """An organisation, its two workspaces and a key to each, as signing up gives them. Raises Failure."""
    body = _checked(SignupBody, name=name, email=email)
    wish = _checked(ApiKeyCreate, name=key_name, scopes=scopes)
    async with _transaction(database_url) as session:
        made: SignupOut = await create_organisation(session, body.name, body.email, (sandbox_accounts,))
        for workspace in (made.test, made.live):
            await _enter(session, workspace.workspace_id)
            await session.execute(
                text("UPDATE spine.api_keys SET name = :name, scopes = :scopes WHERE workspace_id = :ws"),
                {"name": wish.name, "scopes": wish.scopes, "ws": workspace.workspace_id},
            )
    return made.model_dump(mode="json")


async def further_key(database_url: str, workspace_id: str, name: str, scopes: list[str]) -> Any:
    """A key for a workspace whose keys are lost. It is announced like any other. Raises Failure."""
    wish = _checked(ApiKeyCreate, name=name, scopes=scopes)
    async with _transaction(database_url) as session:
        await _enter(session, workspace_id)
        env = await session.scalar(
            text("SELECT env FROM spine.workspaces WHERE workspace_id = :ws"), {"ws": workspace_id}
        )
        if env is None:
            raise Failure(f"there is no workspace {workspace_id}")
        key, id = mint_key(env), ids.mint(ids.PREFIXES["api_key"])
        now = ids.created_at(id)
        row = ApiKeyRow(workspace_id=workspace_id, id=id, created_at=now, updated_at=now)
        for column, value in {"name": wish.name, "scopes": wish.scopes, **key_columns(key)}.items():
            setattr(row, column, value)
        session.add(row)
        await session.flush()
        out = ApiKeyOut.model_validate(row)
        await _announce(session, workspace_id, env, out)
    return ApiKeyWithSecret(**out.model_dump(), api_key=key).model_dump(mode="json")


async def _enter(session: AsyncSession, workspace_id: str) -> None:
    """From here on the transaction sees this workspace, and no other."""
    await session.execute(text("SELECT set_config('app.ws', :ws, true)"), {"ws": workspace_id})


async def _announce(session: AsyncSession, workspace_id: str, env: str, key: ApiKeyOut) -> None:
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
