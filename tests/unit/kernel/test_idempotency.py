"""Idempotency keys: the header, the fingerprint, the parser below it, and the locks."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine.kernel.errors import BadRequest, Conflict, InvalidBody
from spine.kernel.idempotency import KeyLocks, fingerprint, read_key
from spine.kernel.request_body import parse

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5).filter(str.isprintable), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_equal_json_has_one_fingerprint(value: object) -> None:
    """The order of names, white space and escapes do not change the fingerprint (conventions 2.1)."""
    plain = fingerprint("POST", "/v1/x", "", parse(json.dumps(value).encode()))
    spaced = fingerprint("POST", "/v1/x", "", parse(json.dumps(value, indent=3, ensure_ascii=False).encode()))
    sorted_ = fingerprint("POST", "/v1/x", "", parse(json.dumps(value, sort_keys=True).encode()))
    assert plain == spaced == sorted_


@given(json_values, json_values)
def test_different_bodies_have_different_fingerprints(one: object, other: object) -> None:
    """Two bodies have the same fingerprint only if they are equal."""
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    bodies = [parse(json.dumps(value).encode()) for value in (one, other)]
    if None not in bodies:
        assert (fingerprint("POST", "/", "", bodies[0]) == fingerprint("POST", "/", "", bodies[1])) == same


def test_method_path_and_query_are_in_the_fingerprint() -> None:
    """The same body with another method, path or query is another request (P-07)."""
    fingerprints = {
        fingerprint(method, path, query, {"a": 1})
        for method in ("POST", "PATCH")
        for path in ("/v1/a", "/v1/b")
        for query in ("", "x=1")
    }
    assert len(fingerprints) == 8


@pytest.mark.parametrize("header", ["a", "~!", "k" * 255])
def test_visible_ascii_is_a_key(header: str) -> None:
    """A key is 1 to 255 visible ASCII characters (X15)."""
    assert read_key(header) == header


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "required"),
        ("", "required"),
        ("k" * 256, "invalid"),
        ("a b", "invalid"),
        ("é", "invalid"),
        ("a\n", "invalid"),
    ],
)
def test_any_other_key_is_400(header: str | None, code: str) -> None:
    """Missing and malformed keys have different codes."""
    with pytest.raises(BadRequest) as raised:
        read_key(header)
    assert raised.value.code == f"idempotency_key_{code}"


@pytest.mark.parametrize("digits", ["18446744073709551616", "-9223372036854775809", "1" + "0" * 300])
def test_integers_beyond_64_bits_are_refused(digits: str) -> None:
    """No integer is rounded: a number that does not fit is refused, and accepted in a string."""
    with pytest.raises(InvalidBody, match="64 bits"):
        parse(f'{{"n": [{digits}]}}'.encode())
    assert parse(f'{{"n": "{digits}"}}'.encode()) == {"n": digits}


def test_the_widest_integers_pass() -> None:
    """The smallest and the largest integer of 64 bits are parsed exactly."""
    assert parse(b"[18446744073709551615, -9223372036854775808]") == [2**64 - 1, -(2**63)]


async def test_a_lock_has_one_holder() -> None:
    """Holders of one key never overlap, holders of different keys do, and no lock stays in memory."""
    key_locks = KeyLocks()
    inside: list[str] = []
    most = 0

    async def hold(key: str) -> None:
        nonlocal most
        async with key_locks.hold("wsp", key):
            assert key not in inside
            inside.append(key)
            most = max(most, len(inside))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            inside.remove(key)

    await asyncio.gather(*(hold(key) for key in "aabbccaabbcc"))
    assert most == 3
    assert key_locks._locks == {}


async def test_waiting_too_long_for_a_lock_is_in_use() -> None:
    """A request that waits longer than `wait_s` gets `idempotency_key_in_use` with Retry-After. The holder keeps the lock."""
    key_locks = KeyLocks(wait_s=0.01)
    async with key_locks.hold("wsp", "k"):
        with pytest.raises(Conflict) as raised:
            async with key_locks.hold("wsp", "k"):
                raise AssertionError
        assert raised.value.code == "idempotency_key_in_use"
        assert raised.value.headers == {"Retry-After": "1"}
    async with key_locks.hold("wsp", "k"):
        pass
    assert key_locks._locks == {}
