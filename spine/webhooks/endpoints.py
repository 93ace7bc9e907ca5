"""Webhook endpoints: create, read, list and change them. Enabling, deletion and secrets have modules of their own."""

from typing import Any

from policies.url_targets import TargetRefused
from spine.kernel import ids, store
from spine.kernel.errors import Unprocessable
from spine.kernel.handlers import prepared_by
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, new_router, version_of
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.endpoint_deliveries import follow_endpoint
from spine.webhooks.endpoint_models import (
    CREATED,
    DISABLED,
    ENDPOINT,
    UPDATED,
    EndpointCreate,
    EndpointOut,
    EndpointRow,
    EndpointStatus,
    EndpointUpdate,
    EndpointWithSecret,
)
from spine.webhooks.endpoint_secrets import create_secret
from spine.webhooks.endpoint_store import (
    HIDDEN,
    endpoint_out,
    find_endpoint,
    open_headers,
    require_endpoint_below_limit,
    seal_headers,
)
from spine.webhooks.filters import written
from spine.webhooks.subscriptions import replace_subscriptions

router = new_router("/v1/webhook_endpoints", "webhook_endpoints", ENDPOINT)


async def _check_target(unit: UnitOfWork, body: EndpointCreate | EndpointUpdate, **_: Any) -> TargetRefused | None:
    """Resolve and check the target URL. This runs before the transaction, because it waits for DNS."""
    if not body.url:
        return None
    return await unit.platform.http_client.check_target(
        body.url, https_required=unit.caller.env == "live", workspace_id=unit.caller.workspace_id
    )


def _require_allowed_target(unit: UnitOfWork) -> None:
    if unit.prepared is not None:
        raise Unprocessable(unit.prepared.why, code=unit.prepared.code, param="url")


def _columns(body: EndpointCreate | EndpointUpdate) -> dict[str, Any]:
    values = store.columns(body)
    if "filter" in values:
        values["filter"] = written(values["filter"])
    return values


def _with_kept_values(headers: dict[str, str], present: dict[str, str]) -> dict[str, str]:
    """Return the headers with the present value of each whose value is hidden. Raises Unprocessable if there is none."""
    for name, value in headers.items():
        if value == HIDDEN and name not in present:
            raise Unprocessable(f"there is no header {name} whose value could be kept; send its value", param="headers")
    return {name: present[name] if value == HIDDEN else value for name, value in headers.items()}


def _replace_headers(unit: UnitOfWork, row: EndpointRow, values: dict[str, Any]) -> None:
    """Seal the headers of an update in `values`. Removes them if they are what is stored, because that is no change."""
    headers = values.get("headers")
    if headers is None:
        return
    present = open_headers(unit, row)
    headers = _with_kept_values(headers, present)
    if headers == present and row.headers is not None:
        del values["headers"]  # sealing gives different bytes each time
    else:
        values["headers"] = seal_headers(unit, row.id, headers)


@router.post(
    "",
    status_code=201,
    openapi_extra=declares("webhooks:write", CREATED, sealed=True),
    summary="Create a webhook endpoint",
)
@prepared_by(_check_target)
async def create_webhook_endpoint(body: EndpointCreate, unit: CurrentUnit) -> EndpointWithSecret:
    _require_allowed_target(unit)
    await require_endpoint_below_limit(unit)
    id, values = ids.mint(ENDPOINT.prefix), _columns(body)
    if body.headers is not None:
        values["headers"] = seal_headers(unit, id, _with_kept_values(body.headers, {}))
    row = await store.create(unit, ENDPOINT, id=id, **values)
    await replace_subscriptions(unit, row.id, row.events, row.filter)
    await store.emit_event(unit, ENDPOINT, row, "created")
    return await create_secret(unit, row)


@router.get("/{id}", openapi_extra=declares("webhooks:read"), summary="Read a webhook endpoint")
async def get_webhook_endpoint(id: str, unit: CurrentUnit) -> EndpointOut:
    return endpoint_out(unit, await find_endpoint(unit, id))


@router.get("", openapi_extra=declares("webhooks:read"), summary="List webhook endpoints, newest first")
async def list_webhook_endpoints(unit: CurrentUnit, paging: Paging) -> Page[EndpointOut]:
    not_deleted = EndpointRow.deleted_at.is_(None)
    return await store.page(
        unit, ENDPOINT, paging.cursor, paging.limit, checked=[not_deleted], out=lambda row: endpoint_out(unit, row)
    )


@router.patch(
    "/{id}",
    openapi_extra=declares("webhooks:write", UPDATED, DISABLED),
    summary="Change a webhook endpoint, or disable it",
)
@prepared_by(_check_target)
async def update_webhook_endpoint(
    id: str, body: EndpointUpdate, unit: CurrentUnit, if_match: IfMatch = None
) -> EndpointOut:
    row = await find_endpoint(unit, id, lock=True)
    _require_allowed_target(unit)
    values = _columns(body)
    disabling = values.get("status") == EndpointStatus.DISABLED and row.status == EndpointStatus.ENABLED
    if disabling:
        values |= {"disabled_reason": "by_caller", "disabled_at": await unit.now()}
    _replace_headers(unit, row, values)
    subscribed = row.events, row.filter
    if await store.change(unit, ENDPOINT, row, values, version_of(if_match)):
        await store.emit_event(unit, ENDPOINT, row, "disabled" if disabling else "updated")
    if (row.events, row.filter) != subscribed:
        await replace_subscriptions(unit, id, row.events, row.filter)
    if disabling:
        await follow_endpoint(unit, id)
    return endpoint_out(unit, row)
