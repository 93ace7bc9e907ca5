"""Look-ups of keys: few queries for many keys, none for a key that is known to be unknown."""

import asyncio
from typing import Any

import pytest

from spine.kernel.authentication import Authenticator
from spine.kernel.errors import Forbidden, TooManyRequests, Unauthenticated
from spine.kernel.key_lookup import MAX_BATCH, MAX_UNKNOWN, MAX_WAITING_PER_SITE, KeyLookup
from spine.kernel.keys import key_hash, mint_key


class FakePool:
    """Knows some keys, and counts the queries; `open` lets them end."""

    def __init__(self, *known: str) -> None:
        self.known = {key_hash(key): key for key in known}
        self.batches: list[list[bytes]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def fetch(self, _: str, hashes: list[bytes]) -> list[dict[str, Any]]:
        """Answer like `keys_find`."""
        self.batches.append(hashes)
        await self.open.wait()
        return [
            {
                "hash": each,
                "key_id": self.known[each],
                "workspace_id": "wsp_1",
                "organisation_id": "org_1",
                "env": "live",
                "scopes": ["*"],
                "expires_at": None,
                "confirmed": not self.known[each].startswith("sk_live_"),
            }
            for each in hashes
            if each in self.known
        ]


def bearer(key: str) -> str:
    """The header of a key."""
    return f"Bearer {key}"


async def test_a_flood_of_unknown_keys_is_few_queries() -> None:
    """1,000 keys of nobody from many addresses make one query, and one for each 500 that came meanwhile."""
    pool: Any = FakePool()
    pool.open.clear()
    authenticator = Authenticator(pool)
    sites = iter(range(1001))
    calls = [
        asyncio.create_task(authenticator.caller(bearer(mint_key("test")), lambda: str(next(sites))))
        for _ in range(1001)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    pool.open.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {Unauthenticated}
    assert max(map(len, pool.batches)) <= MAX_BATCH
    assert len(pool.batches) <= 4


async def test_an_unknown_key_is_asked_for_once() -> None:
    """The same unknown key costs one query, however often it comes; what is remembered is bounded."""
    pool: Any = FakePool()
    lookup = KeyLookup(pool)
    key = key_hash(mint_key("test"))
    for _ in range(100):
        assert await lookup.find(key, str) is None
    assert len(pool.batches) == 1
    for n in range(MAX_UNKNOWN):
        await lookup.find(n.to_bytes(32, "big"), str)
    await lookup.find(key, str)
    assert len(pool.batches) == MAX_UNKNOWN + 2


async def test_an_address_waits_with_few_keys_and_a_valid_one_is_served() -> None:
    """Beside a flood of one address others are served at once, and so is a valid key of that address with the next query."""
    mine, other = mint_key("test"), mint_key("test")
    pool: Any = FakePool(mine, other)
    pool.open.clear()
    authenticator = Authenticator(pool)
    flood = [asyncio.create_task(authenticator.caller(bearer(mint_key("test")), lambda: "a")) for _ in range(200)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    elsewhere = asyncio.create_task(authenticator.caller(bearer(other), lambda: "b"))
    await asyncio.sleep(0)
    pool.open.set()
    results = await asyncio.gather(*flood, return_exceptions=True)
    refused = [result for result in results if isinstance(result, TooManyRequests)]
    assert len(refused) >= 200 - 2 * MAX_WAITING_PER_SITE
    assert (await elsewhere).key_id == other
    assert (await authenticator.caller(bearer(mine), lambda: "a")).key_id == mine


async def test_unknown_keys_do_not_flush_the_valid_ones() -> None:
    """A cached key stays cached while more unknown keys come than the cache has room for."""
    mine = mint_key("test")
    pool: Any = FakePool(mine)
    authenticator = Authenticator(pool)
    await authenticator.caller(bearer(mine))
    for _ in range(300):
        with pytest.raises(Unauthenticated):
            await authenticator.caller(bearer(mint_key("test")))
    queries = len(pool.batches)
    await authenticator.caller(bearer(mine))
    assert len(pool.batches) == queries


async def test_a_failed_query_fails_those_who_waited_and_no_later_one() -> None:
    """An error of the database reaches every caller that waited; the next look-up asks again."""
    mine = mint_key("test")
    pool: Any = FakePool(mine)
    lookup = KeyLookup(pool)
    fetch = pool.fetch

    async def fail(*_: object) -> None:
        await asyncio.sleep(0)
        raise OSError

    pool.fetch = fail
    results = await asyncio.gather(*(lookup.find(key_hash(mine), str) for _ in range(3)), return_exceptions=True)
    assert {type(result) for result in results} == {OSError}
    pool.fetch = fetch
    assert (await lookup.find(key_hash(mine), str)) is not None


async def test_a_live_key_waits_for_the_confirmation() -> None:
    """A live key of an address that is not confirmed is 403, and says how it is confirmed."""
    live = mint_key("live")
    pool: Any = FakePool(live)
    authenticator = Authenticator(pool)
    for _ in range(2):
        with pytest.raises(Forbidden, match="confirm") as refused:
            await authenticator.caller(bearer(live))
        assert refused.value.code == "email_not_confirmed"
