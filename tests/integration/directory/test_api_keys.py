"""API keys in use: scopes, rolling, revoking, expiring."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from spine.kernel.authentication import Authenticator
from spine.kernel.database import open_pool
from spine.kernel.errors import Unauthenticated
from spine.kernel.keys import mint_key
from tests.api import Account, Api, Organisation, client, serve


def make(http: httpx.Client, *scopes: str, **more: Any) -> dict[str, Any]:
    """A new key, as it is shown once."""
    answer = http.post("/v1/api_keys", json={"name": "made", "scopes": list(scopes), **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def opens(url: str, key: str) -> bool:
    """Whether a key still opens its workspace."""
    with client(url, key) as http:
        return http.get("/v1/events").status_code == 200


def test_a_key_is_shown_once(http: httpx.Client) -> None:
    """Its text stands in the first answer only; later there are its prefix and last four characters (conventions 2.4)."""
    made = make(http, "events:read")
    key = made["api_key"]
    assert (made["prefix"], made["last4"]) == (key[:8], key[-4:])
    for answer in (http.get(f"/v1/api_keys/{made['id']}"), http.get("/v1/api_keys"), http.get("/v1/events")):
        assert key not in answer.text
    assert "hash" not in http.get(f"/v1/api_keys/{made['id']}").json()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Basic {key}",
        "{key}",
        "Bearer {typo}",
        "Bearer {stranger}",
        "Bearer {key}x",
        "Bearer  é",
    ],
)
def test_what_is_no_key_is_401(header: str, api: Api, org: Organisation) -> None:
    """Another scheme, a typo, a key of nobody: the same 401, with the challenge."""
    key = org.test.key
    text = header.format(key=key, typo=key[:-1] + ("a" if key[-1] != "a" else "b"), stranger=mint_key("test"))
    with httpx.Client(base_url=api.url, trust_env=False) as http:
        answer = http.get("/v1/events", headers={b"Authorization": text.encode("latin-1")})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("scopes", "reads", "writes"),
    [
        (["events:read"], True, False),
        (["events:write"], False, True),
        (["events:*"], True, True),
        (["*"], True, True),
        (["users:*"], False, False),
        (["event:*"], False, False),
    ],
)
def test_scopes_open_what_they_name(
    scopes: list[str], reads: bool, writes: bool, http: httpx.Client, org: Organisation
) -> None:
    """A scope opens its own verb, a family both, `*` everything; nothing else does."""
    with org.test.client(make(http, *scopes)["api_key"]) as narrowed:
        assert narrowed.get("/v1/events").status_code == (200 if reads else 403)
        wrote = narrowed.post("/v1/events", json={"type": "order.paid", "data": {}})
        assert wrote.status_code == (201 if writes else 403)


@pytest.mark.parametrize(
    ("own", "asked", "granted"),
    [
        (["keys:*", "events:read"], "events:read", True),
        (["keys:*", "events:read"], "events:write", False),
        (["keys:*", "events:read"], "events:*", False),
        (["keys:*", "events:*"], "events:*", True),
        (["keys:*", "events:*"], "*", False),
        (["*"], "*", True),
    ],
)
def test_no_key_gives_more_than_it_has(
    own: list[str], asked: str, granted: bool, http: httpx.Client, org: Organisation
) -> None:
    """A key makes and rolls only keys whose scopes it covers."""
    stronger = make(http, asked)
    with org.test.client(make(http, *own)["api_key"]) as maker:
        made = maker.post("/v1/api_keys", json={"name": "child", "scopes": [asked]})
        rolled = maker.post(f"/v1/api_keys/{stronger['id']}/roll")
    assert made.status_code == (201 if granted else 403)
    assert rolled.status_code == (200 if granted else 403)


def test_rolling_without_overlap_ends_the_old_key_at_once(http: httpx.Client, api: Api) -> None:
    """The answer holds the new key; with `overlap_s: 0` the old one is dead when it arrives."""
    made = make(http, "events:*")
    assert opens(api.url, made["api_key"])
    rolled = http.post(f"/v1/api_keys/{made['id']}/roll", json={"overlap_s": 0}).json()
    assert not opens(api.url, made["api_key"])
    assert opens(api.url, rolled["api_key"])
    assert rolled["scopes"] == made["scopes"]
    assert http.get(f"/v1/api_keys/{made['id']}").json()["status"] == "rolled"


def test_rolling_with_an_overlap_keeps_both_until_it_ends(http: httpx.Client, api: Api) -> None:
    """Old and new open side by side; the old one ends with the overlap, by the workspace's clock."""
    made = make(http, "events:*")
    rolled = http.post(f"/v1/api_keys/{made['id']}/roll", json={"overlap_s": 3600}).json()
    assert opens(api.url, made["api_key"])
    assert opens(api.url, rolled["api_key"])
    http.post("/v1/test_helpers/clock", json={"advance_s": 3601})
    assert not opens(api.url, made["api_key"])
    assert opens(api.url, rolled["api_key"])
    again = http.post(f"/v1/api_keys/{made['id']}/roll")
    assert (again.status_code, again.json()["code"], again.json()["allowed"]) == (
        409,
        "illegal_transition",
        ["revoked"],
    )


def test_revoking_is_in_force_when_it_is_answered(http: httpx.Client, api: Api) -> None:
    """The very next call with the key is 401; a second revocation is 409, and nothing is allowed any more."""
    made = make(http, "events:*")
    assert opens(api.url, made["api_key"])
    assert http.post(f"/v1/api_keys/{made['id']}/revoke").json()["status"] == "revoked"
    assert not opens(api.url, made["api_key"])
    again = http.post(f"/v1/api_keys/{made['id']}/revoke")
    assert (again.status_code, again.json()["allowed"]) == (409, [])


async def test_another_process_learns_of_a_revocation(api: Api, org: Organisation) -> None:
    """A process that has just seen the key asks again within five seconds (conventions 2.4)."""
    with serve(api.database_url, api.redis_url) as other:
        async with org.test.async_client() as here:
            made = (await here.post("/v1/api_keys", json={"name": "x", "scopes": ["events:read"]})).json()
            there = Account(other.url, org.test.organisation_id, org.test.workspace_id, made["api_key"])
            async with there.async_client() as elsewhere:
                assert (await elsewhere.get("/v1/events")).status_code == 200
                await here.post(f"/v1/api_keys/{made['id']}/revoke")
                statuses = [(await elsewhere.get("/v1/events")).status_code]
                for _ in range(50):
                    if statuses[-1] != 401:
                        await asyncio.sleep(0.1)
                        statuses.append((await elsewhere.get("/v1/events")).status_code)
                assert statuses[-1] == 401


async def test_an_answer_that_a_revocation_overtook_is_not_remembered(api: Api, org: Organisation) -> None:
    """A look-up under way while a key is revoked opens no door afterwards."""
    pool = await open_pool(api.database_url, "spine_app", "test", 2)
    try:
        authenticator = Authenticator(pool)
        looked_up = asyncio.create_task(authenticator.caller(f"Bearer {org.test.key}"))
        await asyncio.sleep(0)
        authenticator.clear_cache()
        await looked_up
        async with org.test.async_client() as http:
            keys = (await http.get("/v1/api_keys")).json()["data"]
            await http.post(f"/v1/api_keys/{keys[0]['id']}/revoke")
        with pytest.raises(Unauthenticated):
            await authenticator.caller(f"Bearer {org.test.key}")
    finally:
        await pool.close()


def test_a_key_expires(http: httpx.Client, api: Api) -> None:
    """`expires_at` is kept to the moment; one that lies in the past is refused at once."""
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = make(http, "events:read", expires_at=soon)
    assert opens(api.url, made["api_key"])
    http.post("/v1/test_helpers/clock", json={"advance_s": 3601})
    assert not opens(api.url, made["api_key"])
    past = http.post("/v1/api_keys", json={"name": "x", "scopes": ["*"], "expires_at": "2020-01-01T00:00:00Z"})
    assert (past.status_code, past.json()["param"]) == (422, "expires_at")


async def test_use_is_noted(api: Api, org: Organisation) -> None:
    """`last_used_at` tells of the last use, without a write for each (P-01)."""
    pool = await open_pool(api.database_url, "spine_app", "test", 1)
    try:
        authenticator = Authenticator(pool)
        for _ in range(3):
            caller = await authenticator.caller(f"Bearer {org.test.key}")
        await authenticator.flush_key_use()
        await authenticator.flush_key_use()
    finally:
        await pool.close()
    owner = await asyncpg.connect(api.database_url)
    try:
        used = await owner.fetchval("SELECT last_used_at FROM spine.api_keys WHERE id = $1", caller.key_id)
    finally:
        await owner.close()
    assert abs(datetime.now(UTC) - used) < timedelta(minutes=1)


def test_at_rest_there_is_a_hash(http: httpx.Client, api: Api, org: Organisation) -> None:
    """The key's rows hold 32 bytes, a prefix and four characters, and no more of it (P-01)."""
    made = make(http, "events:read")

    async def row() -> str:
        owner = await asyncpg.connect(api.database_url)
        try:
            text: str = await owner.fetchval(
                "SELECT k::text || h::text FROM spine.api_keys k JOIN spine.api_key_hashes h ON h.key_id = k.id WHERE k.id = $1",
                made["id"],
            )
            return text
        finally:
            await owner.close()

    text = asyncio.run(row())
    assert made["api_key"][8:-4] not in text
    assert made["api_key"].encode().hex() not in text


def test_a_key_never_outlives_the_key_that_made_it(http: httpx.Client, api: Api) -> None:
    """A key with an end makes only keys that end with it: by default, and however it is asked; a later end is refused."""
    end = datetime.now(UTC) + timedelta(hours=1)
    parent = make(http, "*", expires_at=end.isoformat())
    with client(api.url, parent["api_key"]) as held:
        assert make(held, "events:read")["expires_at"] == parent["expires_at"]
        sooner = make(held, "events:read", expires_at=(end - timedelta(minutes=5)).isoformat())
        assert sooner["expires_at"] < parent["expires_at"]
        later = {"name": "later", "scopes": ["events:read"], "expires_at": (end + timedelta(seconds=1)).isoformat()}
        refused = held.post("/v1/api_keys", json=later)
    assert (refused.status_code, refused.json()["param"]) == (422, "expires_at")


def test_a_rolled_key_ends_with_the_old_one_and_with_the_one_that_rolled_it(http: httpx.Client, api: Api) -> None:
    """Rolling does not prolong: not the key that is rolled, and not the access of a caller whose own key ends."""
    end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    old = make(http, "events:read", expires_at=end)
    assert http.post(f"/v1/api_keys/{old['id']}/roll").json()["expires_at"] == old["expires_at"]
    endless, visitor = make(http, "events:read"), make(http, "*", expires_at=end)
    with client(api.url, visitor["api_key"]) as held:
        assert held.post(f"/v1/api_keys/{endless['id']}/roll").json()["expires_at"] == visitor["expires_at"]


def test_a_key_in_its_overlap_makes_no_endless_key(http: httpx.Client, api: Api) -> None:
    """The old key of a roll can still make keys, and they end when its overlap ends, in every process at once."""
    old = make(http, "*")
    with serve(api.database_url, api.redis_url) as other, client(other.url, old["api_key"]) as elsewhere:
        assert elsewhere.get("/v1/events").status_code == 200  # now this process has cached a key without an end
        http.post(f"/v1/api_keys/{old['id']}/roll", json={"overlap_s": 60})
        overlap_ends = http.get(f"/v1/api_keys/{old['id']}").json()["expires_at"]
        assert make(elsewhere, "events:read")["expires_at"] == overlap_ends


def test_a_key_revokes_only_what_it_could_have_made(http: httpx.Client, api: Api) -> None:
    """Revoking asks for the scopes of the key that is revoked; a key may always revoke itself."""
    small, large = make(http, "keys:write", "events:read"), make(http, "*")
    with client(api.url, small["api_key"]) as held:
        refused = held.post(f"/v1/api_keys/{large['id']}/revoke")
        assert (refused.status_code, opens(api.url, large["api_key"])) == (403, True)
        assert held.post(f"/v1/api_keys/{small['id']}/revoke").json()["status"] == "revoked"
