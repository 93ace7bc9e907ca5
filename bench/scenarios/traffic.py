"""Scenarios of traffic: fan-out, number of endpoints, size of bodies."""

from bench.environment import Environment
from bench.scenarios.drain import measure_drain


async def fan_out(environment: Environment) -> None:
    """All events to one endpoint, and each event to a hundred endpoints."""
    events = environment.scale.drain_events
    await measure_drain(
        environment,
        "1 event to 1 endpoint, one endpoint",
        environment.receiver.urls("ok", 1),
        events,
        max_in_flight=100,
    )
    await measure_drain(
        environment, "1 event to 100 endpoints", environment.receiver.urls("ok", 100), events // 100, to_all=True
    )


async def many_endpoints(environment: Environment) -> None:
    """Two thousand endpoints with one event each: no batch per endpoint, and no cached endpoint."""
    await measure_drain(
        environment, "2,000 endpoints, an event each", environment.receiver.urls("ok", 2000), 2000, warm_up=0
    )


async def sizes(environment: Environment) -> None:
    """Bodies of 1 KiB and of 64 KiB."""
    urls = environment.receiver.urls("ok", 10)
    await measure_drain(environment, "bodies of 1 KiB", urls, environment.scale.drain_events, size=1024)
    await measure_drain(environment, "bodies of 64 KiB", urls, environment.scale.drain_events // 10, size=65536)
