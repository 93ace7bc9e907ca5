"""Standard Webhooks signatures, for signing and verification: `v1` (HMAC-SHA256) and `v1a` (ed25519).

The signed content is `id.timestamp.body`, over the bytes that are sent. The prefix of a key names its scheme: `whsec_` signs
and verifies v1, `whsk_` signs v1a, `whpk_` verifies v1a.
"""

import hmac
import secrets as random_source
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

TOLERANCE_S: Final = 300
"""Largest difference between a timestamp and the verifier's clock, both ways. It limits the replay of a captured request."""

_SYMMETRIC: Final = "whsec_"
_PRIVATE: Final = "whsk_"
_PUBLIC: Final = "whpk_"
_SECRET_BYTES: Final = range(24, 65)
_MAX_SIGNATURES: Final = 32


def new_secret() -> str:
    """Return a new v1 secret: `whsec_` and 32 random bytes in base64."""
    return _SYMMETRIC + b64encode(random_source.token_bytes(32)).decode()


def new_private_key() -> str:
    """Return a new v1a private key: `whsk_` and its 32 bytes in base64."""
    return _PRIVATE + b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()


def public_key(private_key: str) -> str:
    """Return the `whpk_` key that verifies the signatures of this `whsk_` key. It may be published."""
    return _PUBLIC + b64encode(_private(private_key).public_key().public_bytes_raw()).decode()


class Signer:
    """Signs for one endpoint. Build it once per version of the secrets, because decoding keys costs more than signing."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Create one signature per secret, in the given order: the newest first, then those that a rotation keeps valid.

        Raises ValueError for a secret that is not base64 or has the wrong length for its scheme.
        """
        texts = tuple(secrets)
        if not texts:
            raise ValueError("a signer needs at least one secret")
        self._keys = tuple(_private(text) if text.startswith(_PRIVATE) else _secret(text) for text in texts)

    def sign(self, message_id: str, timestamp_s: int, body: bytes) -> str:
        """Return the value of the `webhook-signature` header."""
        content = _content(message_id, timestamp_s, body)
        return " ".join([_signature(key, content) for key in self._keys])


class Verifier:
    """Verifies signatures with these secrets (`whsec_`) or public keys (`whpk_`)."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = tuple(_public(text) if text.startswith(_PUBLIC) else _secret(text) for text in keys)

    def verify(
        self, message_id: str | None, timestamp: str | None, signatures: str | None, body: bytes, now_s: float
    ) -> bool:
        """Return True if the values of the three `webhook-` headers, as received, are valid for this body at this time.

        False if a header is missing or malformed, if the timestamp differs by more than `TOLERANCE_S`, or if no signature
        matches. All three have the same result, so a sender learns nothing from it.
        """
        if not message_id or not timestamp or not signatures or not _is_seconds(timestamp):
            return False
        if abs(now_s - int(timestamp)) > TOLERANCE_S:
            return False
        content = _content(message_id, timestamp, body)
        received = [_split(text) for text in signatures.split(" ", _MAX_SIGNATURES)[:_MAX_SIGNATURES]]
        return any(_matches(key, content, scheme, value) for key in self._keys for scheme, value in received)


def sign(message_id: str, timestamp_s: int, body: bytes, secrets: Iterable[str]) -> str:
    """Sign once with these secrets, like `Signer.sign`."""
    return Signer(secrets).sign(message_id, timestamp_s, body)


def _content(message_id: str, timestamp: int | str, body: bytes) -> bytes:
    return f"{message_id}.{timestamp}.".encode(errors="surrogateescape") + body


def _signature(key: bytes | Ed25519PrivateKey, content: bytes) -> str:
    if isinstance(key, bytes):
        return "v1," + b64encode(hmac.digest(key, content, "sha256")).decode()
    return "v1a," + b64encode(key.sign(content)).decode()


def _matches(key: bytes | Ed25519PublicKey, content: bytes, scheme: str, value: bytes) -> bool:
    if isinstance(key, bytes):
        return scheme == "v1" and hmac.compare_digest(hmac.digest(key, content, "sha256"), value)
    if scheme != "v1a":
        return False
    try:
        key.verify(value, content)
    except InvalidSignature:
        return False
    return True


def _split(text: str) -> tuple[str, bytes]:
    scheme, _, value = text.partition(",")
    try:
        return scheme, b64decode(value, validate=True)
    except (Base64Error, ValueError):
        return scheme, b""


def _is_seconds(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12


def _secret(text: str) -> bytes:
    key = _decoded(text.removeprefix(_SYMMETRIC))
    if len(key) not in _SECRET_BYTES:
        raise ValueError("a webhook secret is 24 to 64 bytes in base64")
    return key


def _private(text: str) -> Ed25519PrivateKey:
    key = _decoded(text.removeprefix(_PRIVATE))
    if len(key) not in {32, 64}:
        raise ValueError("a webhook private key is 32 bytes in base64, or 64 with its public key behind")
    return Ed25519PrivateKey.from_private_bytes(key[:32])


def _public(text: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(_decoded(text.removeprefix(_PUBLIC)))


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except Base64Error as error:
        raise ValueError("a webhook key must be base64") from error
