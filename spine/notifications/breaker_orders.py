"""Orders of an operator to a breaker: keep it open or closed for a while, or release it to its own judgement."""

from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints
from sqlalchemy import text

from spine.kernel import store, timeline
from spine.kernel.resource import Body
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.breakers import CLOSE, CLOSED, OPENED, BreakerOut, circuit
from spine.notifications.provider_accounts import ACCOUNT, AccountOut, with_breakers

_DEFAULT_S: Final = 3600
_MAX_S: Final = 7 * 24 * 3600
_ORDER: Final = text("""
    INSERT INTO spine.provider_breakers AS b (workspace_id, account_id, forced, forced_until, reason, generation)
    VALUES (:ws, :id, :forced, :until, :reason, 1)
    ON CONFLICT (workspace_id, account_id) DO UPDATE
       SET forced = EXCLUDED.forced, forced_until = EXCLUDED.forced_until, reason = EXCLUDED.reason, generation = b.generation + 1
    RETURNING generation
""")
_RELEASE: Final = text(f"""
    INSERT INTO spine.provider_breakers AS b (workspace_id, account_id, generation) VALUES (:ws, :id, 1)
    ON CONFLICT (workspace_id, account_id) DO UPDATE SET forced = NULL, forced_until = NULL, {CLOSE}
    RETURNING generation
""")  # noqa: S608  # CLOSE is a constant


class OrderBody(Body):
    reason: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    expires_in_s: int = Field(default=_DEFAULT_S, ge=1, le=_MAX_S, description="How long the order is in force.")


router = new_router(f"/notifications/v1/{ACCOUNT.plural}", ACCOUNT.plural)


@router.post(
    "/{id}/force_open",
    openapi_extra=declares("notifications:write", OPENED),
    summary="Do not call a provider account for a while",
)
async def force_open_provider_account(id: str, body: OrderBody, unit: CurrentUnit) -> AccountOut:
    return await _order(unit, id, "open", body)


@router.post(
    "/{id}/force_closed",
    openapi_extra=declares("notifications:write", CLOSED),
    summary="Call a provider account for a while, whatever its calls come to",
)
async def force_closed_provider_account(id: str, body: OrderBody, unit: CurrentUnit) -> AccountOut:
    return await _order(unit, id, "closed", body)


@router.post(
    "/{id}/release",
    openapi_extra=declares("notifications:write", CLOSED),
    summary="End an order or an opening: the account is called, and its calls decide from then on",
)
async def release_provider_account(id: str, unit: CurrentUnit) -> AccountOut:
    row = await store.get(unit, ACCOUNT, id, lock=True)
    generation: int = await unit.session.scalar(_RELEASE, {"ws": unit.workspace_id, "id": id})
    await timeline.append(unit, id, "circuit.released", detail={})
    unit.emit(CLOSED, circuit(row, BreakerOut()), sequence=generation)
    unit.wake("send")
    return (await with_breakers(unit, [row]))[0]


async def _order(unit: UnitOfWork, id: str, forced: Literal["open", "closed"], body: OrderBody) -> AccountOut:
    row = await store.get(unit, ACCOUNT, id, lock=True)
    until: datetime = await unit.now() + timedelta(seconds=body.expires_in_s)
    values = {"ws": unit.workspace_id, "id": id, "forced": forced, "until": until, "reason": body.reason}
    generation: int = await unit.session.scalar(_ORDER, values)
    await timeline.append(
        unit, id, f"circuit.forced_{forced}", detail={"reason": body.reason, "until": until.isoformat()}
    )
    (out,) = await with_breakers(unit, [row])
    unit.emit(OPENED if forced == "open" else CLOSED, circuit(row, out.breaker), sequence=generation)
    unit.wake("send")
    return out
