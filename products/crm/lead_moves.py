"""A lead's moves through its stages (C-10): each is a conditional write, so of several callers who saw one stage one wins."""

from typing import Any, cast

from sqlalchemy import func, update

from policies.lead_stages import TRANSITIONS, Stage, is_revival, may_follow
from products.crm.deals import CREATED as DEAL_CREATED
from products.crm.deals import open_deal
from products.crm.history import tell
from products.crm.lead_models import LEAD, STAGE_CHANGED, ConvertBody, LeadOut, LeadRow, MoveBody, stage_changed
from spine.kernel import store
from spine.kernel.errors import IllegalTransition, Unprocessable
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.timeline import Change
from spine.kernel.unit_of_work import UnitOfWork

router = new_router("/crm/v1/leads", "leads")


def _refusal(stage: Stage, allowed: frozenset[Stage] | None = None) -> IllegalTransition:
    allowed = TRANSITIONS[stage] if allowed is None else allowed
    return IllegalTransition(
        f"the lead is {stage}; from there it can become: {', '.join(sorted(allowed)) or 'nothing else'}",
        allowed=sorted(allowed),
    )


async def _move(unit: UnitOfWork, row: LeadRow, to: Stage, **values: Any) -> LeadOut:
    """Move the lead from the stage that was read. Raises IllegalTransition, also if somebody else moved it since."""
    stage = cast(Stage, row.stage)
    statement = (
        update(LeadRow)
        .where(LeadRow.workspace_id == unit.workspace_id, LeadRow.id == row.id, LeadRow.stage == stage)
        .values(stage=to, version=LeadRow.version + 1, updated_at=func.now(), **values)
        .returning(LeadRow.id)
        .execution_options(synchronize_session=False)
    )
    moved = await unit.session.scalar(statement)
    await unit.session.refresh(row)
    if moved is None:
        raise _refusal(cast(Stage, row.stage))
    out = LeadOut.model_validate(row)
    revival = is_revival(stage, to)
    actor = unit.caller.actor
    unit.emit(STAGE_CHANGED, stage_changed(out, stage, actor, revival=revival), sequence=row.version)
    detail = {"lead_id": row.id, "revival": revival, **({"lost_reason": row.lost_reason} if row.lost_reason else {})}
    changes = [Change(field="stage", old=stage, new=to)]
    await tell(unit, "lead.stage_changed", row.id, row.contact_id, changes=changes, detail=detail)
    return out


@router.post(
    "/{id}/move",
    openapi_extra=declares("crm:write", STAGE_CHANGED, tool="crm_move_lead"),
    summary="Move a lead to another stage",
)
async def move_lead(id: str, body: MoveBody, unit: CurrentUnit) -> LeadOut:
    if (body.to == "lost") != (body.lost_reason is not None):
        why = "say why it was lost" if body.to == "lost" else "only a lost lead has a reason"
        raise Unprocessable(why, param="lost_reason")
    row: LeadRow = await store.get(unit, LEAD, id)
    stage = cast(Stage, row.stage)
    if body.to == "converted":
        raise _refusal(stage, TRANSITIONS[stage] - {"converted"})
    if not may_follow(stage, body.to):
        raise _refusal(stage)
    return await _move(unit, row, body.to, lost_reason=body.lost_reason)


@router.post(
    "/{id}/convert",
    openapi_extra=declares("crm:write", STAGE_CHANGED, DEAL_CREATED),
    summary="Convert a qualified lead, and open its deal if one is given",
)
async def convert_lead(id: str, unit: CurrentUnit, body: ConvertBody | None = None) -> LeadOut:
    row: LeadRow = await store.get(unit, LEAD, id)
    stage = cast(Stage, row.stage)
    if not may_follow(stage, "converted"):
        raise _refusal(stage)
    deal_id = None
    if body is not None and body.deal is not None:
        deal = await open_deal(unit, body.deal, contact_id=row.contact_id, lead_id=row.id, owner_id=row.owner_id)
        deal_id = deal.id
    return await _move(unit, row, "converted", deal_id=deal_id)
