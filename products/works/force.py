"""Guards that a caller may override with a reason: closing a project, reaching a milestone."""

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from spine.kernel.errors import Conflict, FieldError, Unprocessable
from spine.kernel.resource import Body

SHOWN: Final = 20
"""Open items that a refusal lists."""

Reason = Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True)]


class ForceBody(Body):
    force: bool = Field(default=False, description="True: although something is open. It needs a reason.")
    reason: Reason | None = None


class ReasonBody(Body):
    reason: Reason | None = None


def require_reason(body: ForceBody) -> None:
    """Raise Unprocessable `reason_required` for force without a reason."""
    if body.force and body.reason is None:
        raise Unprocessable("say why it is forced: give a reason", code="reason_required", param="reason")


def refuse_while_open(items: Sequence[tuple[str, str]], noun: str, code: str, allowed: Sequence[str]) -> None:
    """Raise Conflict with the open items (ids and names), if there are any. Of more than `SHOWN` it lists the first."""
    if not items:
        return
    count = f"{SHOWN} {noun}s and more are" if len(items) > SHOWN else f"{len(items)} {noun}(s) are"
    raise Conflict(
        f"{count} open; finish them first, or force it with a reason",
        code=code,
        allowed=allowed,
        errors=[FieldError(param=id, code=f"{noun}_open", detail=name) for id, name in items[:SHOWN]],
    )
