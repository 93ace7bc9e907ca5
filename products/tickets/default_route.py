"""The default route: the routing rule without a topic. While a form is active there is one, so its tickets have owners (T-14).

Each side locks the rule before it looks at the other side, so that of two at once one sees the other.
"""

from typing import Final

from sqlalchemy import text

from spine.kernel.errors import Conflict
from spine.kernel.unit_of_work import UnitOfWork

_LOCK: Final = text("SELECT 1 FROM spine.routing_rules WHERE workspace_id = :ws AND topic IS NULL FOR KEY SHARE")
_ACTIVE_FORM: Final = text("SELECT id FROM spine.forms WHERE workspace_id = :ws AND status = 'active' LIMIT 1")


def default_route_required() -> Conflict:
    """Return the error for a form whose tickets would have no owner."""
    return Conflict(
        "a form needs a default route, so that each of its tickets has an owner: create a routing rule with topic null",
        code="default_route_required",
    )


async def require_default_route(unit: UnitOfWork) -> None:
    """Keep the default route until the transaction ends. Raises Conflict `default_route_required` if there is none."""
    if await unit.session.scalar(_LOCK, {"ws": unit.workspace_id}) is None:
        raise default_route_required()


async def refuse_while_a_form_is_active(unit: UnitOfWork) -> None:
    """Raise Conflict `default_route_in_use` if a form is active. The caller has locked the default route for a change."""
    form_id = await unit.session.scalar(_ACTIVE_FORM, {"ws": unit.workspace_id})
    if form_id is not None:
        raise Conflict(
            "active forms need the default route: disable them first, or give the route another owner",
            code="default_route_in_use",
            existing_id=form_id,
        )
