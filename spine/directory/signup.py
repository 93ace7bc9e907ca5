"""Signup: one call creates an organisation, its test and live workspaces, and a key to each (ruling X18).

The test key works at once. The live key works once the address is confirmed, with the token that is mailed to it or by the
operator, unless SPINE_SIGNUP_CONFIRMATION is none. Signups are limited per address of the caller, and mails per mailbox, so
that nobody can have a third party mailed again and again.
"""

import hashlib
import secrets
from typing import Annotated

import structlog
from fastapi import Request
from pydantic import EmailStr, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession

from spine.directory.workspaces import OrganisationOut, SignupOut, create_organisation
from spine.kernel.client_address import client_site
from spine.kernel.errors import Forbidden, NotFound
from spine.kernel.platform import Platform
from spine.kernel.resource import Body, Name
from spine.kernel.routes import declares, new_router

_log = structlog.get_logger(__name__)
_MAIL = """\
Somebody signed up with this address for an account at {url}.

If it was you, confirm the address within 7 days; the live key works from then on:

curl -X POST {url}/v1/signup/confirm -H 'Content-Type: application/json' -d '{{"token": "{token}"}}'

If it was not you, do nothing.
"""


class SignupBody(Body):
    name: Name
    email: EmailStr


class ConfirmationBody(Body):
    token: Annotated[str, StringConstraints(min_length=1, max_length=200)]


router = new_router("/v1", "signup")


@router.post(
    "/signup", status_code=201, openapi_extra=declares("", public=True), summary="Sign up: both keys in one call"
)
async def sign_up(body: SignupBody, request: Request) -> SignupOut:
    platform: Platform = request.app.state.platform
    if platform.http.signup != "open":
        raise Forbidden(
            "signing up is closed here; the operator makes keys with `spine keys create`", code="signup_closed"
        )
    await _limit(platform, request)
    token = secrets.token_urlsafe(32) if platform.http.signup_confirmation == "required" else None
    if token is not None and platform.mail.is_configured:
        await platform.confirmation_mails.take(
            body.email.lower(), "this address was sent its mails of today; use the newest one, or sign up tomorrow"
        )
    async with AsyncSession(platform.engine, expire_on_commit=False) as session, session.begin():
        created = await create_organisation(
            session,
            body.name,
            body.email,
            platform.workspace_seeds,
            confirmation_hash=None if token is None else _hash(token),
        )
    _log.info("organisation created", organisation_id=created.organisation.id, confirmed=token is None)
    if token is not None and platform.mail.is_configured:
        text = _MAIL.format(url=platform.http.url, token=token)
        platform.mail.send_soon(body.email, "Confirm your e-mail address", text)
    return created


@router.post(
    "/signup/confirm", openapi_extra=declares("", public=True), summary="Confirm the e-mail address of a signup"
)
async def confirm_signup(body: ConfirmationBody, request: Request) -> OrganisationOut:
    platform: Platform = request.app.state.platform
    await _limit(platform, request)
    row = await platform.pool.fetchrow("SELECT * FROM spine.organisation_confirm($1)", _hash(body.token))
    if row is None:
        raise NotFound("this token confirms nothing; it is good for 7 days after the signup")
    platform.authenticator.clear_cache()
    return OrganisationOut(id=row["id"], name=row["name"], email=row["email"])


async def _limit(platform: Platform, request: Request) -> None:
    await platform.signups.take(
        client_site(request, platform.http.trusted_proxies),
        f"this address made its {platform.http.signup_per_hour} signups of this hour",
    )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
