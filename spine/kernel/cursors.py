"""Cursors that neither skip nor repeat while others write (requirement P-12; conventions 2.2).

Every listed row keeps the transaction that made it (`xid`). The first page notes the database's snapshot; later pages
show only rows visible in it, so rows that commit late, with ids smaller than those already read, belong to the next
traversal, and none is lost or shown twice. A cursor is bound to its workspace, path and filters, and signed.
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
"""A snapshot lists the transactions in flight, so a cursor's length depends on how many are writing: 500 fit."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a traversal stands: the snapshot it is frozen on, the key of the last row read, and for feeds what was read before."""

    snapshot: str
    after: tuple[str, ...] = ()
    read: str | None = None


class Cursors:
    """Writes and reads cursors of one installation; `epoch` changes when transaction ids lose their meaning (a restore)."""

    def __init__(self, key: bytes, epoch: str) -> None:
        self._key = hashlib.sha256(b"spine.cursor" + key).digest()
        self._epoch = epoch

    def write(self, binding: str, position: Position) -> str:
        """The cursor as text. `binding` is the workspace, path and filters that it is good for."""
        plain = [_VERSION, self._epoch, _packed(position.snapshot), position.after, _packed(position.read or "")]
        content = zlib.compress(orjson.dumps(plain), wbits=-15)
        return base64.urlsafe_b64encode(self._mac(binding, content) + content).decode().rstrip("=")

    def read(self, binding: str, text: str) -> Position:
        """The position in a cursor. Raises BadRequest `invalid_cursor` for anything we did not write for this very list."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            mac, content = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(binding, content)):
                raise _invalid()
            version, epoch, snapshot, after, read = orjson.loads(zlib.decompress(content, wbits=-15))
        except (binascii.Error, ValueError) as error:
            raise _invalid() from error
        if version != _VERSION or epoch != self._epoch:
            raise _invalid()
        return Position(_unpacked(snapshot), tuple(after), _unpacked(read) or None)

    def _mac(self, binding: str, content: bytes) -> bytes:
        return hmac.digest(self._key, binding.encode() + b"\0" + content, "sha256")[:_MAC_BYTES]


def _packed(snapshot: str) -> list[int]:
    """A snapshot (`xmin:xmax:xid,xid,…`) as xmin and the steps from each number to the next: those are small."""
    numbers = [int(number) for number in re.split("[:,]", snapshot) if number]
    return [number - before for before, number in zip([0, *numbers], numbers, strict=False)]


def _unpacked(steps: list[int]) -> str:
    if not steps:
        return ""
    xmin, xmax, *running = accumulate(steps)
    return f"{xmin}:{xmax}:{','.join(map(str, running))}"


def _invalid() -> BadRequest:
    return BadRequest(
        "this cursor is not one of this list, with these filters, in this workspace; start again without a cursor",
        code="invalid_cursor",
        param="cursor",
    )
