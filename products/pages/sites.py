"""A hosted page as its routes see it: its slug, the workspace behind it, its brand and where it may be framed."""

import re
from dataclasses import dataclass
from typing import Final

from products.pages.framing import Framing
from products.pages.render_tokens import Kind
from products.pages.rendering import Look
from spine.kernel.errors import NotFound
from spine.kernel.keys import Env

_SLUG: Final = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Site:
    """One page of one workspace."""

    kind: Kind
    slug: str
    workspace_id: str
    organisation_id: str
    env: Env
    look: Look
    framing: Framing

    @property
    def path(self) -> str:
        """The path of the page."""
        return f"/{self.kind.value}/{self.slug}"


def no_page() -> NotFound:
    """Return the error for a slug that leads nowhere. It is the same for an unknown page and a disabled one (P-15)."""
    return NotFound("there is no page at this address; ask whoever gave it to you for the right one")


def require_slug(text: str) -> None:
    """Raise NotFound for a text that can be no slug, before a database is asked for it."""
    if not _SLUG.fullmatch(text):
        raise no_page()
