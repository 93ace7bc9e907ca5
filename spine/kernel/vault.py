"""The vault: encrypts secrets at rest with AES-256-GCM under the installation's key (SPINE_ENCRYPTION_KEY)."""

import base64
import binascii
import hashlib
import hmac
import os
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = b"\x01"
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12


class Unsealable(Exception):
    """The ciphertext was changed, or its key is no longer in SPINE_ENCRYPTION_KEY."""


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

    def seal(self, plain: bytes) -> bytes:
        """Return the ciphertext, prefixed with the format version and the id of the key."""
        key_id, cipher = next(iter(self._ciphers.items()))
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + key_id + nonce + cipher.encrypt(nonce, plain, _VERSION)

    def open(self, sealed: bytes) -> bytes:
        """Return the plain bytes. Raises Unsealable."""
        key_id = sealed[1 : 1 + _KEY_ID_BYTES]
        nonce = sealed[1 + _KEY_ID_BYTES : 1 + _KEY_ID_BYTES + _NONCE_BYTES]
        cipher = self._ciphers.get(key_id)
        if sealed[:1] != _VERSION or cipher is None:
            raise Unsealable
        try:
            return cipher.decrypt(nonce, sealed[1 + _KEY_ID_BYTES + _NONCE_BYTES :], _VERSION)
        except InvalidTag as error:
            raise Unsealable from error
