"""Signup: one call creates an organisation, its test and live workspaces, and a key to each (ruling X18)."""

import structlog
from fastapi import Request
from pydantic import EmailStr
from sqlalchemy.ext.asyncio import AsyncSession

from spine.directory.workspaces import SignupOut, create_organisation
from spine.kernel.errors import Forbidden
from spine.kernel.platform import Platform
from spine.kernel.resource import Body, Name
from spine.kernel.routes import declares, new_router

_log = structlog.get_logger(__name__)


class SignupBody(Body):
    name: Name
    email: EmailStr


router = new_router("/v1", "signup")


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
        created = await create_organisation(session, body.name, body.email, platform.workspace_seeds)
    _log.info("organisation created", organisation_id=created.organisation.id)
    return created
