"""Cursors that neither skip nor repeat rows while others write (requirement P-12; conventions 2.2).

Every listed row stores the transaction that inserted it (`xid`). The first page records the database's snapshot. Later
pages show only rows that this snapshot sees. So a row that commits late, with an id smaller than those already read,
belongs to the next traversal, and no row is lost or shown twice. A cursor is bound to its workspace, path and filters,
and it is signed.
"""

import base64
import binascii
import hashlib
import hmac
import re
import zlib
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import orjson

from spine.kernel.errors import BadRequest

_VERSION: Final = 2
_MAC_BYTES: Final = 12
MAX_LENGTH: Final = 4096
"""Characters of the longest cursor. A snapshot lists the transactions in flight, so its length grows with them: 500 fit."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a traversal.

    `snapshot` is the snapshot that the traversal reads from, `after` the key of the last row read, and `read_snapshot`
    (feeds only) the snapshot whose rows earlier traversals have read.
    """

    snapshot: str
    after: tuple[str, ...] = ()
    read_snapshot: str | None = None


class Cursors:
    """Encodes and decodes the cursors of one installation. `epoch` changes when old transaction ids become invalid (a restore)."""

    def __init__(self, key: bytes, epoch: str) -> None:
        self._key = hashlib.sha256(b"spine.cursor" + key).digest()
        self._epoch = epoch

    def encode(self, binding: str, position: Position) -> str:
        """Return the cursor as text. `binding` is the workspace, path and filters that it is valid for."""
        plain = [
            _VERSION,
            self._epoch,
            _pack(position.snapshot),
            position.after,
            _pack(position.read_snapshot or ""),
        ]
        content = zlib.compress(orjson.dumps(plain), wbits=-15)
        return base64.urlsafe_b64encode(self._mac(binding, content) + content).decode().rstrip("=")

    def decode(self, binding: str, text: str) -> Position:
        """Return the position in a cursor. Raises BadRequest `invalid_cursor` unless we encoded it for this very list."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            mac, content = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(binding, content)):
                raise _invalid()
            version, epoch, snapshot, after, read_snapshot = orjson.loads(zlib.decompress(content, wbits=-15))
        except (binascii.Error, ValueError) as error:
            raise _invalid() from error
        if version != _VERSION or epoch != self._epoch:
            raise _invalid()
        return Position(_unpack(snapshot), tuple(after), _unpack(read_snapshot) or None)

    def _mac(self, binding: str, content: bytes) -> bytes:
        return hmac.digest(self._key, binding.encode() + b"\0" + content, "sha256")[:_MAC_BYTES]


def _pack(snapshot: str) -> list[int]:
    """Return a snapshot (`xmin:xmax:xid,xid,…`) as xmin and the differences between neighbours, which are small numbers."""
    numbers = [int(number) for number in re.split("[:,]", snapshot) if number]
    return [number - before for before, number in zip([0, *numbers], numbers, strict=False)]


def _unpack(differences: list[int]) -> str:
    if not differences:
        return ""
    xmin, xmax, *running = accumulate(differences)
    return f"{xmin}:{xmax}:{','.join(map(str, running))}"


def _invalid() -> BadRequest:
    return BadRequest(
        "this cursor is not one of this list, with these filters, in this workspace; start again without a cursor",
        code="invalid_cursor",
        param="cursor",
    )
