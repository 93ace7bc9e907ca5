"""Check Redis: reachable, and no eviction of wakeups. A loss of Redis costs time, but no work."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from redis.exceptions import RedisError

from spine.cli.doctor.finding import Finding, fail, ok, warn
from spine.kernel.redis_client import open_redis

_FULL_RATIO: Final = 0.9


async def check_redis(url: str) -> AsyncIterator[Finding]:
    """Yield the findings about the Redis at `url`."""
    try:
        redis = open_redis(url)
    except (ValueError, IndexError) as error:
        yield fail("redis", f"REDIS_URL cannot be read: {error}", "write it as redis://host:6379/0")
        return
    try:
        info = await redis.info()
    except (OSError, RedisError) as error:
        remedy = "start it, or correct REDIS_URL; until then work goes on, slower, by the sweep"
        yield fail("redis", f"not reachable at REDIS_URL: {error}", remedy)
        return
    finally:
        await redis.aclose()
    yield ok("redis", f"version {info.get('valkey_version') or info.get('redis_version')}")
    yield memory(info)
    yield persistence(info)


def memory(info: Mapping[str, Any]) -> Finding:
    """Judge the memory limit and the eviction policy."""
    limit, used, policy = int(info.get("maxmemory", 0)), int(info["used_memory"]), info.get("maxmemory_policy", "")
    if limit == 0:
        return ok("redis memory", "no limit")
    observed = f"{used / limit:.0%} of its limit, policy {policy}"
    if policy != "noeviction":
        remedy = "CONFIG SET maxmemory-policy noeviction, or give Spine a Redis of its own: evicted wakeups cost time"
        return warn("redis memory", observed, remedy)
    return (
        warn("redis memory", observed, "raise maxmemory")
        if used > _FULL_RATIO * limit
        else ok("redis memory", observed)
    )


def persistence(info: Mapping[str, Any]) -> Finding:
    """Judge the persistence. Redis may persist nothing, but must not refuse writes because its disk fails."""
    if info.get("rdb_last_bgsave_status", "ok") != "ok" or info.get("aof_last_write_status", "ok") != "ok":
        remedy = "look into its log: the disk is full or closed to it, and it may refuse writes"
        return fail("redis disk", "its last write to disk failed", remedy)
    persisted = "append-only file" if info.get("aof_enabled") else "nothing or snapshots; a restart costs time, no work"
    return ok("redis disk", persisted)
