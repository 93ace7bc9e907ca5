"""API keys as text."""

import string

from hypothesis import given
from hypothesis import strategies as st

from spine.kernel.keys import Env, is_well_formed, key_hash, mint_key

BASE62 = string.digits + string.ascii_letters


def test_a_key_is_well_formed() -> None:
    """A minted key has its environment, 38 base62 characters and a checksum that holds (wire.md)."""
    envs: tuple[Env, ...] = ("test", "live")
    for env in envs:
        key = mint_key(env)
        head, body = key[:8], key[8:]
        assert head == f"sk_{env}_"
        assert len(body) == 38
        assert set(body) <= set(BASE62)
        assert is_well_formed(key)


def test_no_two_keys_are_the_same() -> None:
    """Keys are random."""
    assert len({mint_key("test") for _ in range(1000)}) == 1000


@given(st.integers(0, 45), st.sampled_from(BASE62))
def test_one_changed_character_is_a_typo(position: int, other: str) -> None:
    """The checksum finds any single wrong character without asking anybody."""
    key = mint_key("test")
    if position < len(key) and key[position] != other:
        assert not is_well_formed(key[:position] + other + key[position + 1 :])


@given(st.text(max_size=60))
def test_nonsense_is_no_key(text: str) -> None:
    """Whatever is not of a key's shape is refused, and breaks nothing."""
    assert not is_well_formed(text)
    assert not is_well_formed(mint_key("live") + "\n")


def test_what_is_kept_is_a_hash() -> None:
    """At rest there are 32 bytes that do not hold the key."""
    key = mint_key("test")
    assert len(key_hash(key)) == 32
    assert key.encode() not in key_hash(key)
    assert key_hash(key) != key_hash(mint_key("test"))
