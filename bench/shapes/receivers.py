"""Shapes of receivers: some fail, some are slow, some speak TLS, with and without kept connections."""

from bench.certificates import make_authority
from bench.rig import Rig
from bench.shapes.drained import drained
from bench.tenant import BODY_BYTES

_ENDPOINTS = 20
_CAP = 20


async def failing(rig: Rig) -> None:
    """One first attempt in ten fails with 500 and is made again a second later; each shows as one duplicate."""
    await drained(rig, "10 % of first attempts failing", rig.receiver.urls("fail/10", 10), rig.scale.drained, warm_up=0)


async def slow(rig: Rig) -> None:
    """Answers after 1 ms, 100 ms and 2 s. By Little's law 400 calls at once allow 4,000/s and 200/s of the latter two."""
    for wait_ms, events in ((1, rig.scale.drained), (100, rig.scale.drained), (2000, 2_000)):
        found = await drained(
            rig, f"receivers of {wait_ms} ms", rig.receiver.urls(f"wait/{wait_ms}", _ENDPOINTS), events, cap=_CAP
        )
        most = _ENDPOINTS * _CAP / (wait_ms / 1000)
        rig.results.note("shapes", **{f"receivers of {wait_ms} ms, part of what their caps allow": found.per_s / most})


async def tls(rig: Rig) -> None:
    """HTTPS by a local authority: connections kept, closed after each answer; and the bare loop over kept ones."""
    files = make_authority(rig.installation.directory)
    database = await rig.installation.database("tls", 2)
    worker = await rig.installation.worker(database, SPINE_EGRESS_CA_FILE=str(files.authority))
    receiver = rig.installation.receiver((files.certificate, files.key))
    kept = await drained(
        rig, "HTTPS, connections kept", receiver.urls("ok", 10), rig.scale.drained, database=database, receiver=receiver
    )
    await drained(
        rig,
        "HTTPS, closed after each",
        receiver.urls("close", 10),
        2_000,
        database=database,
        receiver=receiver,
        warm_up=0,
    )
    bare = rig.installation.bare(files.authority)
    for _ in range(2):
        rate, _ = await bare.rate(receiver.urls("ok", 10), rig.scale.drained, 100, BODY_BYTES)
    rig.results.note(
        "shapes", **{"HTTPS, bare loop, per s": rate, "HTTPS, kept, over the bare loop": kept.per_s / rate}
    )
    rig.installation.dismiss(worker)
