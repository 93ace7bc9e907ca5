"""Submissions: what every posted page passes, and its one transaction (requirements T-13, K-11, ruling X21).

    429 address ─► body under limits ─► 404 slug ─► 403 origin ─► 403/409 render token ─► 422 fields ─► 429 slug, backlog
        ─► wait for the least time ─► unit of work: claim the render's key, contact, work, events ─► 303 to the result

A page needs no cookie, so there is nothing that a foreign site could misuse; origin and token keep scripts out that never looked
at the page. The key of the transaction is the render's nonce: the same page sent twice, one after the other or at once, leads to
the same result, and a page that was changed after it was sent is refused.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson
from fastapi import Request

from products.pages.framing import check_origin
from products.pages.render_tokens import MAX_AGE, Refused, Render, RenderTokens
from products.pages.sites import Site
from products.pages.submitted_fields import text_of
from products.pages.visitor import Errors
from spine.kernel.authentication import internal_caller
from spine.kernel.client_address import client_site
from spine.kernel.errors import Conflict, Forbidden, SpineError
from spine.kernel.events import SYSTEM
from spine.kernel.idempotency import Claim, StoredResponse, fingerprint
from spine.kernel.platform import Platform
from spine.kernel.unit_of_work import UnitOfWork

TOKEN_FIELD: Final = "idempotency_key"  # noqa: S105 - the name of a field
_EXPIRED: Final = (
    f"This page was open for more than {int(MAX_AGE.total_seconds()) // 3600} hours. Please check it and send it again."
)
_PROBLEMS: Final = {
    "slot_unavailable": "This time was taken while you were choosing. Please choose another one.",
    "reference_not_found": "This cannot be booked. Please choose again.",
    "service_mismatch": "This time is for something else. Please choose another one.",
    "slot_too_short": "This time is too short. Please choose another one.",
    "illegal_transition": "This is not possible any more.",
    "idempotency_key_reused": "You sent this page before, with other contents. To send it once more as it is now, send it again.",
    "idempotency_key_in_use": "Your page is still being sent. Please wait a moment and send it again: it will not count twice.",
    "backlog_full": "There is too much to do at the moment. Please send it again in a few seconds.",
    "unavailable": "That did not work just now. Please send it again: it will not count twice.",
}
"""What a visitor reads instead of what a programmer would."""
_FORGED: Final = "This did not come from a page of ours. Please check it and send it again."


class StoredRefusal(SpineError):
    """The refusal that the transaction answered with, now or when this page was sent before."""

    def __init__(self, status: int, problem: Mapping[str, str]) -> None:
        super().__init__(problem["detail"], code=problem["code"], param=problem.get("param"))
        self.stored_status = status


@dataclass(frozen=True, slots=True)
class Returned:
    """A page that goes back to the visitor with what was typed: why, and what is to be mended."""

    status: int
    errors: Errors
    problem: str = ""
    token: str = ""
    """The same key again, for a submission that is not over: sent again, it is carried out once. Else a new one is issued."""
    headers: Mapping[str, str] = field(default_factory=dict)


def returned(error: SpineError, fields: Mapping[str, str]) -> Returned:
    """Return how a page goes back for this error."""
    if isinstance(error, StoredRefusal):
        return Returned(error.stored_status, {}, _PROBLEMS.get(error.code, error.detail))
    over = error.code in ("render_required", "render_expired", "origin_not_allowed", "idempotency_key_reused")
    token = "" if over else text_of(fields, TOKEN_FIELD)
    return Returned(error.status, {}, _PROBLEMS.get(error.code, error.detail), token, error.headers)


async def limit_views(request: Request, platform: Platform) -> None:
    """Count a view of the client's address. Raises TooManyRequests `page_view_limited`."""
    address = client_site(request, platform.http.trusted_proxies)
    await platform.page_views.take(address, "There were too many requests from your address. Please wait a minute.")


async def limit_submissions(request: Request, platform: Platform) -> None:
    """Count a submission of the client's address. Raises TooManyRequests `page_submission_limited`."""
    address = client_site(request, platform.http.trusted_proxies)
    await platform.page_submissions.take(
        address, "There were too many submissions from your address. Please try again later."
    )


def issue_token(platform: Platform, site: Site, subject: str = "") -> str:
    """Return the hidden key of a new rendering. `subject` is what a page behind a link leads to."""
    return RenderTokens(platform.vault).issue(site.kind, site.slug + subject, platform.clock.now())


def read_render(
    request: Request, platform: Platform, site: Site, fields: Mapping[str, str], subject: str = ""
) -> Render:
    """Return the rendering that was submitted. Raises Forbidden `origin_not_allowed` or `render_required`, Conflict `render_expired`."""
    check_origin(request, platform, site.framing)
    token = text_of(fields, TOKEN_FIELD)
    render = RenderTokens(platform.vault).read(token, site.kind, site.slug + subject, platform.clock.now())
    if render is Refused.FORGED:
        raise Forbidden(_FORGED, code="render_required", param=TOKEN_FIELD)
    if render is Refused.EXPIRED:
        raise Conflict(_EXPIRED, code="render_expired", param=TOKEN_FIELD)
    return render


async def carry_out(
    request: Request,
    platform: Platform,
    site: Site,
    render: Render,
    values: Mapping[str, str | None],
    work: Callable[[UnitOfWork], Awaitable[str]],
) -> str:
    """Run the work once for this rendering, in one transaction. Returns the path of the result, the same one for each repetition.

    Raises StoredRefusal for a refusal of the work, Conflict if the page was changed after it was sent or is being sent right now,
    TooManyRequests.
    """
    await platform.page_slugs.take(site.path, "This page is used too much at the moment. Please try again later.")
    platform.backpressure.refuse_when_full(site.workspace_id)
    await _wait_for_least_time(platform, render)
    unit = UnitOfWork(
        platform,
        internal_caller(site.workspace_id, site.organisation_id, site.env, SYSTEM),  # until the contact is known
        request.scope["spine.request_id"],
        request.url.path,
        Claim(render.key, fingerprint("POST", site.path, "", dict(values))),
    )
    # The path holds a link, so it is stored encrypted, like other responses with secrets.
    stored, _ = await unit.write(lambda: work(unit), _to_stored, sealed=True)
    if stored.status >= 400:
        raise StoredRefusal(stored.status, orjson.loads(stored.body))
    return stored.body.decode()


def _to_stored(path: str) -> StoredResponse:
    return StoredResponse(303, path.encode(), None)


async def _wait_for_least_time(platform: Platform, render: Render) -> None:
    """Wait until the page has been open for SPINE_PAGE_MIN_FILL_S. Nobody types that fast, so only programs wait."""
    age_s = (platform.clock.now() - render.issued_at).total_seconds()
    await asyncio.sleep(min(max(platform.http.page_min_fill_s - age_s, 0), platform.http.page_min_fill_s))
