"""Render tokens: the hidden key of a page, one per rendering (requirement P-05, ruling X21).

    issued (ms) . nonce . HMAC-SHA256 over the page, its slug, `issued` and `nonce`

It shows that the submission comes from a page of ours that was rendered lately, so a foreign site cannot post one that it made up;
and its nonce is the idempotency key, so one rendering makes one ticket or appointment.
"""

import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

from spine.kernel.vault import Vault

MAX_AGE: Final = timedelta(hours=12)
"""Shorter than the life of an idempotency key, so that no token outlives the memory of its submission."""
_FUTURE: Final = timedelta(minutes=1)
"""How far the clocks of two API processes may be apart."""
_TOKEN: Final = re.compile(r"([0-9]{13,14})\.([A-Za-z0-9_-]{22})\.([0-9a-f]{64})", re.ASCII)


class Kind(Enum):
    """A kind of page, by the first part of its path."""

    BOOKING = "b"
    FORM = "f"


class Refused(Enum):
    """Why a token is not taken."""

    FORGED = "forged"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Render:
    """One rendering of a page."""

    kind: Kind
    subject: str
    """The slug and, for a page behind a link, what the link leads to."""
    issued_at: datetime
    nonce: str

    @property
    def key(self) -> str:
        """The idempotency key of its submission. The space keeps it apart from the keys of API callers, who cannot send one."""
        return f"page {self.kind.value}/{self.subject} {self.nonce}"


class RenderTokens:
    """Issues and reads render tokens, with a key derived from the installation's key."""

    def __init__(self, vault: Vault) -> None:
        self._secret = vault.derive(b"page.render")

    def issue(self, kind: Kind, subject: str, now: datetime) -> str:
        """Return a token for a new rendering."""
        issued_ms, nonce = int(now.timestamp() * 1000), secrets.token_urlsafe(16)
        return f"{issued_ms}.{nonce}.{self._mac(kind, subject, issued_ms, nonce)}"

    def read(self, token: str, kind: Kind, subject: str, now: datetime) -> Render | Refused:
        """Return the rendering that a token of this page stands for, or why it is not taken."""
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return Refused.FORGED
        issued_ms, nonce = int(parts[1]), parts[2]
        if not hmac.compare_digest(parts[3], self._mac(kind, subject, issued_ms, nonce)):
            return Refused.FORGED
        issued_at = datetime.fromtimestamp(issued_ms / 1000, UTC)
        if not -_FUTURE < now - issued_at < MAX_AGE:
            return Refused.EXPIRED
        return Render(kind, subject, issued_at, nonce)

    def _mac(self, kind: Kind, subject: str, issued_ms: int, nonce: str) -> str:
        signed = "\n".join((kind.value, subject, str(issued_ms), nonce))
        return hmac.new(self._secret, signed.encode(), "sha256").hexdigest()
