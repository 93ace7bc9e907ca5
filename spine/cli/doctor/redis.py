"""Redis: reachable, and not throwing bells away. Its loss costs time, never work."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from redis.exceptions import RedisError

from spine.cli.doctor.finding import Finding, fail, ok, warn
from spine.kernel.redis_client import open_redis

_FULL: Final = 0.9


async def bells(url: str) -> AsyncIterator[Finding]:
    """All of it."""
    try:
        redis = open_redis(url)
    except (ValueError, IndexError) as error:
        yield fail("redis", f"REDIS_URL cannot be read: {error}", "write it as redis://host:6379/0")
        return
    try:
        found = await redis.info()
    except (OSError, RedisError) as error:
        mend = "start it, or correct REDIS_URL; until then work goes on, slower, by the sweep"
        yield fail("redis", f"not reachable at REDIS_URL: {error}", mend)
        return
    finally:
        await redis.aclose()
    yield ok("redis", f"version {found.get('valkey_version') or found.get('redis_version')}")
    yield memory(found)
    yield persistence(found)


def memory(found: Mapping[str, Any]) -> Finding:
    """What it does when it is full."""
    limit, used, policy = int(found.get("maxmemory", 0)), int(found["used_memory"]), found.get("maxmemory_policy", "")
    if limit == 0:
        return ok("redis memory", "no limit")
    saw = f"{used / limit:.0%} of its limit, policy {policy}"
    if policy != "noeviction":
        mend = "CONFIG SET maxmemory-policy noeviction, or give Spine a Redis of its own: evicted bells cost time"
        return warn("redis memory", saw, mend)
    return warn("redis memory", saw, "raise maxmemory") if used > _FULL * limit else ok("redis memory", saw)


def persistence(found: Mapping[str, Any]) -> Finding:
    """What it keeps over a restart. It may keep nothing, but must not refuse writes because it cannot keep."""
    if found.get("rdb_last_bgsave_status", "ok") != "ok" or found.get("aof_last_write_status", "ok") != "ok":
        mend = "look into its log: the disk is full or closed to it, and it may refuse writes"
        return fail("redis disk", "its last write to disk failed", mend)
    kept = "append-only file" if found.get("aof_enabled") else "nothing or snapshots; a restart costs moments, no work"
    return ok("redis disk", kept)
