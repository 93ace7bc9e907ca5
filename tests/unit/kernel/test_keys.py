"""API keys as text."""

import string

from hypothesis import given
from hypothesis import strategies as st

from spine.kernel.keys import Env, is_well_formed, key_hash, mint_key

BASE62 = string.digits + string.ascii_letters


def test_a_key_is_well_formed() -> None:
    """A new key has its environment, 38 base62 characters and a right checksum (wire.md)."""
    envs: tuple[Env, ...] = ("test", "live")
    for env in envs:
        key = mint_key(env)
        head, body = key[:8], key[8:]
        assert head == f"sk_{env}_"
        assert len(body) == 38
        assert set(body) <= set(BASE62)
        assert is_well_formed(key)


def test_no_two_keys_are_the_same() -> None:
    """A thousand new keys are all different."""
    assert len({mint_key("test") for _ in range(1000)}) == 1000


@given(st.integers(0, 45), st.sampled_from(BASE62))
def test_one_changed_character_is_detected(position: int, other: str) -> None:
    """The checksum detects any single wrong character without a query."""
    key = mint_key("test")
    if position < len(key) and key[position] != other:
        assert not is_well_formed(key[:position] + other + key[position + 1 :])


@given(st.text(max_size=60))
def test_any_other_text_is_no_key(text: str) -> None:
    """A text that is not in the format of a key is refused without an error."""
    assert not is_well_formed(text)
    assert not is_well_formed(mint_key("live") + "\n")


def test_only_a_hash_is_stored() -> None:
    """The stored value is 32 bytes that do not contain the key."""
    key = mint_key("test")
    assert len(key_hash(key)) == 32
    assert key.encode() not in key_hash(key)
    assert key_hash(key) != key_hash(mint_key("test"))
