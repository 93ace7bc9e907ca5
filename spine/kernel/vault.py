"""The vault: encrypts secrets at rest with AES-256-GCM under the installation's key (SPINE_ENCRYPTION_KEY)."""

import base64
import binascii
import hashlib
import hmac
import os
from typing import NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = b"\x02"
_UNBOUND_VERSION = b"\x01"
"""Version 0.1 sealed values without their place. They open until `spine secrets reseal` has sealed them again."""
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12


class Place(NamedTuple):
    """Where a sealed value is stored. It opens nowhere else, so a value that is copied to another row is of no use there."""

    workspace_id: str
    table: str
    row: str
    column: str


class Unsealable(Exception):
    """The ciphertext was changed or moved, or its key is no longer in SPINE_ENCRYPTION_KEY."""


class Vault:
    """Encrypts (`seal`) with the first key and decrypts (`open`) with any. To rotate, put a new key first."""

    def __init__(self, keys: list[bytes]) -> None:
        if not keys or any(len(key) != 32 for key in keys):
            raise ValueError(
                "SPINE_ENCRYPTION_KEY: give the base64 of 32 random bytes (openssl rand -base64 32), several separated by commas"
            )
        self._first = keys[0]
        self._ciphers = {hashlib.sha256(key).digest()[:_KEY_ID_BYTES]: AESGCM(key) for key in keys}

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return a vault for the setting's text. Raises ValueError that says how to correct it."""
        try:
            return cls([base64.b64decode(part.strip(), validate=True) for part in text.split(",") if part.strip()])
        except binascii.Error:
            return cls([])

    def derive(self, purpose: bytes) -> bytes:
        """Return a key for another purpose, such as signing cursors. It changes with the first key."""
        return hmac.digest(self._first, b"spine." + purpose, "sha256")

    @property
    def prefix(self) -> bytes:
        """The first bytes of every value that is sealed now: the format version and the id of the first key."""
        return _VERSION + next(iter(self._ciphers))

    def seal(self, plain: bytes, place: Place) -> bytes:
        """Return the ciphertext for this place, prefixed with the format version and the id of the key."""
        nonce = os.urandom(_NONCE_BYTES)
        cipher = next(iter(self._ciphers.values()))
        return self.prefix + nonce + cipher.encrypt(nonce, plain, _VERSION + _bound_to(place))

    def open(self, sealed: bytes, place: Place) -> bytes:
        """Return the plain bytes of a value that was sealed for this place. Raises Unsealable."""
        key_id = sealed[1 : 1 + _KEY_ID_BYTES]
        nonce = sealed[1 + _KEY_ID_BYTES : 1 + _KEY_ID_BYTES + _NONCE_BYTES]
        cipher = self._ciphers.get(key_id)
        if sealed[:1] not in (_VERSION, _UNBOUND_VERSION) or cipher is None:
            raise Unsealable
        bound_to = _bound_to(place) if sealed[:1] == _VERSION else b""
        try:
            return cipher.decrypt(nonce, sealed[1 + _KEY_ID_BYTES + _NONCE_BYTES :], sealed[:1] + bound_to)
        except InvalidTag as error:
            raise Unsealable from error


def _bound_to(place: Place) -> bytes:
    """Return the place as bytes. No part of a place contains a zero byte, because Postgres stores none in a text."""
    return "\0".join(place).encode()
