"""Opening a project: directly, or from a won deal; with the milestones and tasks of a template, all or nothing (X13)."""

from products.crm.deals import DEAL, DealRow
from products.works.history import entry
from products.works.milestones import CREATED as MILESTONE_CREATED
from products.works.projects import CREATED, PROJECT, ProjectCreate, ProjectOut
from products.works.scaffold import scaffold
from products.works.tasks import CREATED as TASK_CREATED
from products.works.templates import newest_template
from spine.kernel import store, timeline
from spine.kernel.errors import Conflict, NotFound, Unprocessable
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork

router = new_router("/works/v1/projects", "projects")


async def _won_deal(unit: UnitOfWork, id: str) -> DealRow:
    """Return the deal. Raises Unprocessable `reference_not_found`, Conflict `deal_not_won`."""
    try:
        deal: DealRow = await store.get(unit, DEAL, id)
    except NotFound as error:
        raise store.reference_not_found("deal_id") from error
    if deal.status != "won":
        raise Conflict(f"the deal is {deal.status}; win it first", code="deal_not_won", param="deal_id")
    return deal


def _required(value: str | None, param: str) -> str:
    if value is None:
        raise Unprocessable(f"give {'an' if param[0] in 'aeiou' else 'a'} {param}", code="missing", param=param)
    return value


@router.post(
    "",
    status_code=201,
    openapi_extra=declares("works:write", CREATED, MILESTONE_CREATED, TASK_CREATED, tool="works_scaffold_project"),
    summary="Open a project",
)
async def create_project(body: ProjectCreate, unit: CurrentUnit) -> ProjectOut:
    deal = await _won_deal(unit, body.deal_id) if body.deal_id is not None else None
    if deal is not None and body.contact_id not in (None, deal.contact_id):
        raise Unprocessable("the deal is of another contact", code="contact_mismatch", param="contact_id")
    template = await newest_template(unit, body.template) if body.template is not None else None
    values = store.columns(body)
    values |= {
        "name": _required(body.name or (deal.name if deal else None), "name"),
        "owner_id": _required(body.owner_id or (deal.owner_id if deal else None), "owner_id"),
        "contact_id": deal.contact_id if deal else body.contact_id,
        "origin": "won_deal" if deal is not None else "direct",
        "template_version": template and template.version,
    }
    row = await store.create(unit, PROJECT, **values)
    out: ProjectOut = await store.emit_event(unit, PROJECT, row, "created")
    told = [entry(CREATED.name, None, out)]
    if template is not None:
        told += await scaffold(unit, row, template)
    await timeline.append_all(unit, row.id, told)
    return out
