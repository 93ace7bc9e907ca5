"""Secrets at rest: what the vault seals opens again at its place, and nowhere else."""

import base64

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from spine.kernel.vault import Place, Unsealable, Vault

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
PLACE = Place("wsp_1", "endpoint_secrets", "whe_1", "secret")


def sealed_by_version_1(plain: bytes, key: bytes) -> bytes:
    """A value as version 0.1 stored it: without its place."""
    nonce = bytes(12)
    return (
        Vault([key]).seal(b"", PLACE)[:5].replace(b"\x02", b"\x01", 1)
        + nonce
        + AESGCM(key).encrypt(nonce, plain, b"\x01")
    )


@given(plain=st.binary(max_size=200))
def test_what_is_sealed_opens_at_its_place(plain: bytes) -> None:
    """Opening gives the plain bytes back, which are not in the sealed value."""
    sealed = Vault([NEW]).seal(plain, PLACE)
    assert Vault([NEW]).open(sealed, PLACE) == plain
    assert len(plain) < 4 or plain not in sealed


@pytest.mark.parametrize("part", range(4))
def test_a_sealed_value_opens_nowhere_else(part: int) -> None:
    """Another workspace, table, row or column: the value does not open there."""
    elsewhere = Place(*(value + "x" if n == part else value for n, value in enumerate(PLACE)))
    with pytest.raises(Unsealable):
        Vault([NEW]).open(Vault([NEW]).seal(b"secret", PLACE), elsewhere)


def test_the_border_between_two_parts_counts() -> None:
    """Parts that only together give the same text are another place."""
    with pytest.raises(Unsealable):
        Vault([NEW]).open(Vault([NEW]).seal(b"secret", Place("a", "bc", "d", "e")), Place("ab", "c", "d", "e"))


def test_a_rotation_seals_with_the_first_key_and_opens_with_all() -> None:
    """After a new key was put first, old values open, and new ones carry the prefix of the new key."""
    sealed = Vault([OLD]).seal(b"secret", PLACE)
    rotated = Vault([NEW, OLD])
    assert rotated.open(sealed, PLACE) == b"secret"
    assert rotated.seal(b"secret", PLACE).startswith(rotated.prefix)
    assert not sealed.startswith(rotated.prefix)
    with pytest.raises(Unsealable):
        Vault([NEW]).open(sealed, PLACE)


def test_values_of_version_1_open_and_are_recognised() -> None:
    """A value that was sealed before places were bound still opens. Its prefix says that it must be sealed again."""
    sealed = sealed_by_version_1(b"secret", NEW)
    assert Vault([NEW]).open(sealed, PLACE) == b"secret"
    assert not sealed.startswith(Vault([NEW]).prefix)


@pytest.mark.parametrize("text", ["", "AAAA", base64.b64encode(bytes(31)).decode(), "no base64"])
def test_a_key_that_is_none_is_refused(text: str) -> None:
    """The error names the setting and the command that makes a key."""
    with pytest.raises(ValueError, match=r"SPINE_ENCRYPTION_KEY.*openssl rand"):
        Vault.from_text(text)
