"""API keys as text: `sk_test_` or `sk_live_`, 32 random base62 characters and 6 of checksum (conventions 2.4).

The checksum lets a typo be refused without a look-up; at rest there is only a SHA-256, enough for 190 random bits.
"""

import hashlib
import re
import secrets
import string
import zlib
from typing import Final, Literal

Env = Literal["test", "live"]

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM: Final = 32
_CHECKSUM: Final = 6
_SHAPE: Final = re.compile(rf"sk_(?:test|live)_[0-9A-Za-z]{{{_RANDOM + _CHECKSUM}}}")


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(_CHECKSUM):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def mint_key(env: Env) -> str:
    """A new key."""
    head = f"sk_{env}_" + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return head + _checksum(head)


def is_well_formed(key: str) -> bool:
    """Whether the text could be a key: its shape and its checksum are right."""
    return _SHAPE.fullmatch(key) is not None and _checksum(key[:-_CHECKSUM]) == key[-_CHECKSUM:]


def key_hash(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()
