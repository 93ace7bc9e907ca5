"""Where an account's provider is called, and where it calls Spine."""

from typing import Any, Final

from policies.url_targets import TargetRefused
from spine.kernel.errors import Unprocessable
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.provider_calls import callback_path
from spine.notifications.provider_kinds import PROVIDER_KINDS

_TOKEN_PLACE: Final = "{callback_token}"  # noqa: S105  # no secret: the place of one in a URL


async def resolve_target(unit: UnitOfWork, body: Any, **_: Any) -> TargetRefused | None:
    """Resolve the address in a body's credentials, before the transaction opens. Returns why it must not be called, or None."""
    http_client, workspace_id = unit.platform.http_client, unit.caller.workspace_id
    host = body.credentials.get("host")
    if isinstance(host, str):
        bracketed = f"[{host}]" if ":" in host else host
        return await http_client.check_target(f"https://{bracketed}/", workspace_id=workspace_id)
    url = body.credentials.get("url", body.credentials.get("api_url"))
    if isinstance(url, str):
        return await http_client.check_target(url, https_required=True, workspace_id=workspace_id)
    return None


def check_target(unit: UnitOfWork, kind: str) -> None:
    """Raise Unprocessable if the address that `resolve_target` looked at must not be called."""
    target = PROVIDER_KINDS[kind].target
    if unit.prepared is not None and target is not None:
        raise Unprocessable(unit.prepared.why, code=unit.prepared.code, param=f"credentials.{target}")


def callback_url(public_url: str, kind: str, account_id: str) -> str | None:
    """Return the URL to give to an account's provider, for receipts and replies; None if it sends none.

    It ends with a place for the account's own `callback_token`, which is not shown, where the provider signs nothing.
    """
    models = PROVIDER_KINDS[kind]
    if not (models.receipts or models.replies):
        return None
    unsigned = "callback_token" in models.credentials.model_fields
    return public_url + callback_path(account_id, _TOKEN_PLACE if unsigned else None)
