"""Links to a ticket or an appointment: sealed texts that only this installation can make and read (conventions 2.3).

An id is no secret, so a link never holds one in the clear. The seal binds the link to its kind of page; it is good as long as the
key that sealed it is in SPINE_ENCRYPTION_KEY, and nothing of it is stored.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Final, cast

from products.pages.render_tokens import Kind
from spine.kernel.errors import NotFound
from spine.kernel.keys import Env
from spine.kernel.vault import Place, Unsealable, Vault

_MAX_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class Link:
    """What a link leads to: a ticket or an appointment in its workspace."""

    workspace_id: str
    organisation_id: str
    env: Env
    id: str


def _place(kind: Kind, slug: str) -> Place:
    return Place("", "page_links", slug, kind.value)


def seal(vault: Vault, kind: Kind, slug: str, link: Link) -> str:
    """Return the last part of the link's path."""
    plain = f"{link.workspace_id} {link.organisation_id} {link.env} {link.id}"
    return base64.urlsafe_b64encode(vault.seal(plain.encode(), _place(kind, slug))).decode().rstrip("=")


def unseal(vault: Vault, kind: Kind, slug: str, token: str) -> Link:
    """Return what a link leads to. Raises NotFound for every text that is none of ours."""
    if len(token) > _MAX_CHARS:
        raise _leads_nowhere()
    try:
        sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        workspace_id, organisation_id, env, id = vault.open(sealed, _place(kind, slug)).decode().split(" ")
    except (Unsealable, binascii.Error, ValueError) as error:
        raise _leads_nowhere() from error
    return Link(workspace_id, organisation_id, cast("Env", env), id)


def _leads_nowhere() -> NotFound:
    return NotFound("this link leads nowhere; take the whole of it")
