"""Offers to people who wait: a slot that becomes free is offered to one after the other, in the order of joining (K-08).

    slot.released ─► job `calendar.waitlist` ─► the first waiting entry is offered, and told
                                                         │ not claimed in time, or withdrawn
             ┌─► job `calendar.offer` of the slot ◄──────┴─► the next waiting entry is offered, and told ─► …

The jobs of one slot take turns at its row. The slot is not held for whom it is offered to: whoever books first, has it. An
entry whose offer expired waits on; it is offered the slot again when that is released again.
"""

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import func, or_, select

from products.calendar import notices
from products.calendar.services import ServiceRow
from products.calendar.slot_models import SlotRow
from products.calendar.waitlist_models import (
    EXPIRED,
    OFFERED,
    WAITLIST_ENTRY,
    WaitlistEntryOut,
    WaitlistEntryRow,
    WaitlistOffered,
)
from spine.kernel import jobs, store
from spine.kernel.jobs import Job
from spine.kernel.unit_of_work import UnitOfWork

FOLLOW: Final = "calendar.waitlist"
OFFER: Final = "calendar.offer"
EXPIRE: Final = "calendar.offer_expiry"


async def follow_release(unit: UnitOfWork, job: Job) -> None:
    """Offer a slot that was released to the first one in the queue."""
    event = await jobs.read_event(unit, job)
    if event is not None:
        await _offer(unit, event["data"]["id"], 0)


async def offer_on(unit: UnitOfWork, slot_id: str, after: int) -> None:
    """Let a slot be offered to whom follows this queue number, as soon as a worker comes to it."""
    await jobs.schedule(unit, OFFER, slot_id, args={"after": after})


async def offer(unit: UnitOfWork, job: Job) -> None:
    """Offer a slot to the next one in the queue."""
    await _offer(unit, job.subject_id, job.args["after"])


async def _offer(unit: UnitOfWork, slot_id: str, after: int) -> None:
    """Offer one place of a slot that is neither booked nor on offer, and let further ones be offered on."""
    query = select(SlotRow).where(
        SlotRow.workspace_id == unit.workspace_id,
        SlotRow.id == slot_id,
        SlotRow.status == "open",
        SlotRow.bookable_until > func.now(),
    )
    slot: SlotRow | None = await unit.session.scalar(query.with_for_update(key_share=True))
    if slot is None:
        return
    on_offer = select(func.count()).where(
        WaitlistEntryRow.workspace_id == unit.workspace_id,
        WaitlistEntryRow.slot_id == slot.id,
        WaitlistEntryRow.status == "offered",
    )
    places = slot.capacity - slot.booked - (await unit.session.scalar(on_offer) or 0)
    found = (await unit.session.execute(_next(unit, slot, after))).first() if places > 0 else None
    if found is None:
        return
    entry, offer_min = found
    await _offer_to(unit, entry, slot, offer_min)
    if places > 1:
        await offer_on(unit, slot.id, entry.queue_number)


def _next(unit: UnitOfWork, slot: SlotRow, after: int) -> Any:
    """Return the query of the next waiting entry that wants this slot. Entries that change at this moment are left out."""
    minutes = int((slot.ends_at - slot.starts_at) / timedelta(minutes=1))
    return (
        select(WaitlistEntryRow, ServiceRow.offer_min)
        .join(
            ServiceRow,
            (ServiceRow.workspace_id == WaitlistEntryRow.workspace_id) & (ServiceRow.slug == WaitlistEntryRow.service),
        )
        .where(
            WaitlistEntryRow.workspace_id == unit.workspace_id,
            WaitlistEntryRow.status == "waiting",
            WaitlistEntryRow.queue_number > after,
            WaitlistEntryRow.window_from <= slot.starts_at,
            WaitlistEntryRow.window_to > slot.starts_at,
            or_(WaitlistEntryRow.resource_id.is_(None), WaitlistEntryRow.resource_id == slot.resource_id),
            ServiceRow.duration_min <= minutes,
            *([] if slot.service is None else [WaitlistEntryRow.service == slot.service]),
        )
        .order_by(WaitlistEntryRow.queue_number)
        .limit(1)
        .with_for_update(of=WaitlistEntryRow, skip_locked=True)
    )


async def _offer_to(unit: UnitOfWork, entry: WaitlistEntryRow, slot: SlotRow, offer_min: int) -> None:
    expires_at = await unit.now() + timedelta(minutes=offer_min)
    values = {"status": "offered", "slot_id": slot.id, "offer_expires_at": expires_at}
    await store.change(unit, WAITLIST_ENTRY, entry, values)
    await jobs.schedule(unit, EXPIRE, entry.id, expires_at, args={"version": entry.version})
    sent = await notices.tell(
        unit, notices.OFFER, entry.contact_id, entry.id,
        resource_id=slot.resource_id, service=entry.service, starts_at=slot.starts_at, local_times={"expires": expires_at},
    )  # fmt: skip
    out = WaitlistEntryOut.model_validate(entry)
    data = WaitlistOffered(**out.model_dump(by_alias=True), message_ids=notices.message_ids(sent))
    unit.emit(OFFERED, data, sequence=entry.version)


async def expire(unit: UnitOfWork, job: Job) -> None:
    """Let an entry whose offer expired wait on, and offer the slot to the next one."""
    query = select(WaitlistEntryRow).where(
        WaitlistEntryRow.workspace_id == unit.workspace_id, WaitlistEntryRow.id == job.subject_id
    )
    entry: WaitlistEntryRow | None = await unit.session.scalar(query.with_for_update())
    if entry is None or entry.slot_id is None or (entry.status, entry.version) != ("offered", job.args["version"]):
        return
    slot_id = entry.slot_id
    await store.change(unit, WAITLIST_ENTRY, entry, {"status": "waiting", "slot_id": None, "offer_expires_at": None})
    unit.emit(EXPIRED, WaitlistEntryOut.model_validate(entry), sequence=entry.version)
    await offer_on(unit, slot_id, entry.queue_number)
