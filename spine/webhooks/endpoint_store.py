"""Webhook endpoints in the database: find one, and show one to its owner."""

import orjson

from spine.kernel import store
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.endpoint_models import ENDPOINT, EndpointData, EndpointOut, EndpointRow


async def find_endpoint(unit: UnitOfWork, id: str, *, lock: bool = False) -> EndpointRow:
    """Return the endpoint with this id. Raises NotFound, also for a deleted endpoint."""
    row: EndpointRow = await store.get(unit, ENDPOINT, id, lock=lock)
    if row.deleted_at is not None:
        raise store.not_found(ENDPOINT)
    return row


def endpoint_out(unit: UnitOfWork, row: EndpointRow) -> EndpointOut:
    """Return the endpoint as its owner sees it, with its headers decrypted."""
    headers = orjson.loads(unit.platform.vault.open(row.headers)) if row.headers is not None else None
    return EndpointOut(**EndpointData.model_validate(row).model_dump(), headers=headers)
