"""API keys as text: `sk_test_` or `sk_live_`, 32 random base62 characters and 6 of checksum (conventions 2.4).

With the checksum a typo is refused without a query. Only a SHA-256 is stored, which is enough for 190 random bits.
"""

import hashlib
import re
import secrets
import string
import zlib
from typing import Final, Literal

Env = Literal["test", "live"]

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_CHARS: Final = 32
_CHECKSUM_CHARS: Final = 6
_PATTERN: Final = re.compile(rf"sk_(?:test|live)_[0-9A-Za-z]{{{_RANDOM_CHARS + _CHECKSUM_CHARS}}}")


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(_CHECKSUM_CHARS):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def mint_key(env: Env) -> str:
    """Return a new random key."""
    head = f"sk_{env}_" + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARS))
    return head + _checksum(head)


def is_well_formed(key: str) -> bool:
    """True if the text has the format of a key and a right checksum."""
    return _PATTERN.fullmatch(key) is not None and _checksum(key[:-_CHECKSUM_CHARS]) == key[-_CHECKSUM_CHARS:]


def key_hash(key: str) -> bytes:
    """Return the SHA-256 of a key, which is all that is stored of it."""
    return hashlib.sha256(key.encode()).digest()
