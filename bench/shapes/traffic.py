"""Shapes of traffic: how far an event fans out, over how many endpoints, and how large it is."""

from bench.rig import Rig
from bench.shapes.drained import drained


async def fan_out(rig: Rig) -> None:
    """One event to one endpoint, all to the same; and one event to a hundred."""
    events = rig.scale.drained
    await drained(rig, "1 event to 1 endpoint, one endpoint", rig.receiver.urls("ok", 1), events, cap=100)
    await drained(rig, "1 event to 100 endpoints", rig.receiver.urls("ok", 100), events // 100, to_all=True)


async def many_endpoints(rig: Rig) -> None:
    """Two thousand endpoints with an event each: nothing to batch by endpoint, nothing known of any."""
    await drained(rig, "2,000 endpoints, an event each", rig.receiver.urls("ok", 2000), 2000, warm_up=0)


async def sizes(rig: Rig) -> None:
    """Bodies of 1 KiB and of 64 KiB."""
    urls = rig.receiver.urls("ok", 10)
    await drained(rig, "bodies of 1 KiB", urls, rig.scale.drained, size=1024)
    await drained(rig, "bodies of 64 KiB", urls, rig.scale.drained // 10, size=65536)
