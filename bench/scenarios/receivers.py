"""Scenarios of receivers: failing, slow, TLS with and without persistent connections."""

from bench.certificates import create_certificates
from bench.database import BODY_BYTES
from bench.environment import Environment
from bench.scenarios.drain import measure_drain

_ENDPOINTS = 20
_MAX_IN_FLIGHT = 20


async def failing(environment: Environment) -> None:
    """One first attempt in ten fails with 500 and is retried one second later. Each retry is counted as one duplicate."""
    await measure_drain(
        environment,
        "10 % of first attempts failing",
        environment.receiver.urls("fail/10", 10),
        environment.scale.drain_events,
        warm_up=0,
    )


async def slow(environment: Environment) -> None:
    """Responses after 1 ms, 100 ms and 2 s. By Little's law 400 concurrent calls allow 4,000/s and 200/s of the last two."""
    for wait_ms, events in ((1, environment.scale.drain_events), (100, environment.scale.drain_events), (2000, 2_000)):
        found = await measure_drain(
            environment,
            f"receivers of {wait_ms} ms",
            environment.receiver.urls(f"wait/{wait_ms}", _ENDPOINTS),
            events,
            max_in_flight=_MAX_IN_FLIGHT,
        )
        limit_per_s = _ENDPOINTS * _MAX_IN_FLIGHT / (wait_ms / 1000)
        environment.results.note(
            "shapes", **{f"receivers of {wait_ms} ms, part of what their caps allow": found.per_s / limit_per_s}
        )


async def tls(environment: Environment) -> None:
    """HTTPS with a local authority: persistent connections, connections closed after each response, and the bare loop."""
    files = create_certificates(environment.installation.directory)
    database = await environment.installation.database("tls", 2)
    worker = await environment.installation.worker(database, SPINE_EGRESS_CA_FILE=str(files.authority))
    receiver = environment.installation.receiver((files.certificate, files.key))
    kept = await measure_drain(
        environment,
        "HTTPS, connections kept",
        receiver.urls("ok", 10),
        environment.scale.drain_events,
        database=database,
        receiver=receiver,
    )
    await measure_drain(
        environment,
        "HTTPS, closed after each",
        receiver.urls("close", 10),
        2_000,
        database=database,
        receiver=receiver,
        warm_up=0,
    )
    bare = environment.installation.bare_client(files.authority)
    for _ in range(2):
        rate, _ = await bare.rate(receiver.urls("ok", 10), environment.scale.drain_events, 100, BODY_BYTES)
    environment.results.note(
        "shapes", **{"HTTPS, bare loop, per s": rate, "HTTPS, kept, over the bare loop": kept.per_s / rate}
    )
    environment.installation.stop_worker(worker)
