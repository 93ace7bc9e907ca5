"""The sender with a fake HTTP client: when calls start, and how they use the limits."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from spine.kernel.http_client import HttpResponse, NotSentError
from spine.webhooks.signing import Signer, new_secret
from workers.heartbeat import Heartbeat
from workers.webhooks.endpoint_cache import Endpoint
from workers.webhooks.endpoint_queue import PROBE_CALLS
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import AttemptResult, DeliveryJob, DeliveryResult, Discarded, EndpointLimits, Placement
from workers.webhooks.send import STARTS_PER_PRIORITY_TURN, STARTS_PER_TURN, Sender

NOW = datetime(2026, 11, 1, tzinfo=UTC)
FAR = 1e12


class FakeCache:
    """Endpoints in memory."""

    def __init__(self) -> None:
        self.endpoints: dict[tuple[str, str], Endpoint] = {}

    def find(self, key: tuple[str, str], _: float) -> Endpoint | None:
        return self.endpoints.get(key)


class FakeHttpClient:
    """Calls stay in flight until the test responds."""

    def __init__(self) -> None:
        self.open: dict[str, list[asyncio.Future[Any]]] = {}
        self.connecting: asyncio.Event | None = None
        """If set, calls wait for it before they write."""

    async def call(self, url: str, *_: object, may_send: Callable[[], bool], **__: object) -> HttpResponse:
        if self.connecting is not None:
            await self.connecting.wait()
        if not may_send():
            raise NotSentError
        future: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()
        self.open.setdefault(url, []).append(future)
        return await future

    def respond(self, url: str, duration_s: float = 0.01, status: int = 200) -> None:
        self.open[url].pop(0).set_result(HttpResponse(status, None, None, b"", NOW, duration_s))


class Harness:
    """A sender, with all that it passes on."""

    def __init__(self, max_in_flight: int = 10) -> None:
        heartbeat = Heartbeat(cast("Any", None), "me")
        self.queues = EndpointQueues(heartbeat, 1000, 10**9)
        self.http_client = FakeHttpClient()
        self.results: list[DeliveryResult] = []
        self.released: list[tuple[DeliveryJob, Placement]] = []
        self.sender = Sender(
            cast("Any", self.http_client),
            self.queues,
            max_in_flight,
            self.results.append,
            lambda job, placement: self.released.append((job, placement)),
            lambda _: None,
        )
        self.cache = FakeCache()
        self.sender.cache = cast("Any", self.cache)
        self.numbers: Iterator[int] = iter(range(10**6))

    def endpoint(
        self,
        id: str,
        cap: int = 5,
        workspace: str = "wsp",
        *,
        live: bool = True,
        disabled: bool = False,
        deleted: bool = False,
    ) -> EndpointLimits:
        self.cache.endpoints[workspace, id] = Endpoint(
            (workspace, id), id, {}, Signer([new_secret()]), 1, cap, None, live, disabled, deleted, 0.0
        )
        return EndpointLimits(workspace, id, 1, cap, None, live)

    def load(self, limits: EndpointLimits, count: int, lease_ends_s: float = FAR, *, new: bool = False) -> None:
        for _ in range(count):
            n = next(self.numbers)
            assert self.queues.reserve(limits, 0.0) is Placement.LEASED
            job = DeliveryJob(
                limits.workspace_id,
                f"dlv_{n}",
                f"evt_{n}",
                "a.b",
                limits.id,
                0,
                1,
                None,
                NOW,
                b"{}",
                lease_ends_s,
                None,
            )
            queue = self.queues.load(limits, job, 0.0, claimed=False)
        (self.sender.start_new if new else self.sender.start_ready)(queue)

    def calls(self, id: str) -> int:
        return len(self.http_client.open.get(id, []))


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_calls_to_an_endpoint_stay_below_its_cap() -> None:
    """An endpoint gets the probe calls first, and after its first response the whole cap, never more."""
    harness = Harness(max_in_flight=100)
    harness.load(harness.endpoint("a", cap=6), 12)
    await settle()
    assert harness.calls("a") == PROBE_CALLS
    harness.http_client.respond("a")
    await settle()
    harness.sender.start_ready(next(iter(harness.queues)))
    await settle()
    assert harness.calls("a") == 6
    await harness.sender.drain(0)


async def test_the_process_cap_is_shared_in_turns() -> None:
    """If the process has no free call, the waiting queues get the next free ones in turn, one each."""
    harness = Harness(max_in_flight=4)
    harness.load(harness.endpoint("a"), 5)
    harness.load(harness.endpoint("b"), 5)
    await settle()
    assert (harness.calls("a"), harness.calls("b")) == (2, 0)
    for _ in range(2):
        harness.http_client.respond("a")
        await settle()
    assert (harness.calls("a"), harness.calls("b")) == (1, 1)
    await harness.sender.drain(0)


async def test_a_queue_without_a_call_starts_first() -> None:
    """A queue without a call in flight overtakes queues that have calls in flight, even if they waited first."""
    harness = Harness(max_in_flight=4)
    harness.load(harness.endpoint("a"), 5)
    harness.load(harness.endpoint("b"), 1)
    await settle()
    harness.http_client.respond("a")
    await settle()
    assert (harness.calls("a"), harness.calls("b")) == (1, 1)
    await harness.sender.drain(0)


@pytest.mark.parametrize(
    ("prioritised", "priority_s", "most"),
    [(False, 60, STARTS_PER_TURN), (True, 60, STARTS_PER_PRIORITY_TURN), (True, 0, STARTS_PER_TURN)],
)
async def test_few_calls_start_in_one_turn(
    prioritised: bool, priority_s: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn of the event loop starts a limited number of calls, fewer during the priority of new work; at last all start."""
    monkeypatch.setattr("workers.webhooks.send.PRIORITY_S", priority_s)
    harness = Harness(max_in_flight=100)
    limits = harness.endpoint("a", cap=50)
    harness.queues.queue(limits).record_latency(0.01)
    if prioritised:
        harness.sender.prioritise_new()
    harness.load(limits, 40)
    starts = []
    for _ in range(100):
        before = harness.calls("a")
        await asyncio.sleep(0)
        starts.append(harness.calls("a") - before)
    assert sum(starts) == 40
    assert max(starts[2:]) == most  # the priority does not change the turn that has begun
    await harness.sender.drain(0)


async def test_new_work_starts_in_the_turn_in_which_it_arrives() -> None:
    """During the priority a turn keeps some starts for new work. In total it starts no more calls than another turn."""
    harness = Harness(max_in_flight=100)
    old = harness.endpoint("old", cap=90)
    harness.queues.queue(old).record_latency(0.01)
    harness.sender.prioritise_new()
    harness.load(old, 90)
    await settle()
    fresh = [f"new{n}" for n in range(STARTS_PER_TURN)]
    for id in fresh:
        harness.load(harness.endpoint(id), 1, new=True)
    before = harness.calls("old")
    await asyncio.sleep(0)
    starts = [harness.calls(id) for id in fresh]
    assert starts == [1] * (STARTS_PER_TURN - STARTS_PER_PRIORITY_TURN) + [0] * STARTS_PER_PRIORITY_TURN
    assert sum(starts) + harness.calls("old") - before <= STARTS_PER_TURN
    await harness.sender.drain(0)


async def test_slow_queues_use_half_of_the_calls() -> None:
    """Slow queues of all workspaces together get at most half of the calls of the process."""
    harness = Harness(max_in_flight=20)
    for n in range(5):
        slow = harness.endpoint(f"slow{n}", 20, f"wsp_{n}")
        queue = harness.queues.queue(slow)
        queue.record_latency(15.0)
        harness.queues.set_slow(queue, True)
        harness.load(slow, 20)
    for n in range(5):
        good = harness.endpoint(f"good{n}", 20, f"wsp_{n}")
        harness.queues.queue(good).record_latency(0.01)
        harness.load(good, 20)
    await settle()
    calls = {name: sum(harness.calls(f"{name}{n}") for n in range(5)) for name in ("slow", "good")}
    assert 8 <= calls["slow"] <= 10
    assert 8 <= calls["good"] <= 10
    await harness.sender.drain(0)


async def test_one_workspace_leaves_calls_for_the_others() -> None:
    """A workspace with many endpoints gets at most half of the calls, and another workspace's call starts at once."""
    harness = Harness(max_in_flight=32)
    for n in range(100):
        harness.load(harness.endpoint(f"busy{n}", workspace="busy"), 1)
    await settle()
    assert harness.sender.in_flight == 16
    harness.load(harness.endpoint("quiet", workspace="quiet"), 1)
    await settle()
    assert harness.calls("quiet") == 1
    await harness.sender.drain(0)


async def test_a_test_workspace_starts_what_live_ones_leave() -> None:
    """A test workspace alone gets 3/16 of the calls. A live one that comes later gets half of the rest."""
    harness = Harness(max_in_flight=36)
    for n in range(50):
        harness.load(harness.endpoint(f"test{n}", workspace="test", live=False), 1)
    await settle()
    assert harness.sender.in_flight == 7
    for n in range(50):
        harness.load(harness.endpoint(f"live{n}", workspace="live"), 1)
    await settle()
    assert sum(harness.calls(f"live{n}") for n in range(50)) == 14
    await harness.sender.drain(0)


async def test_a_lease_that_ends_while_connecting_is_not_sent() -> None:
    """The lease is looked at again when the connection stands. A job whose lease was lost meanwhile is no attempt."""
    harness = Harness()
    harness.http_client.connecting = asyncio.Event()
    harness.load(harness.endpoint("a"), 1)
    await settle()
    (job,) = harness.queues.jobs
    job.lease_ends_s = 0.0  # as `Leases.renew` marks it, or as time passes
    harness.http_client.connecting.set()
    await settle()
    assert harness.calls("a") == 0
    assert harness.results == []
    assert [placement for _, placement in harness.released] == [Placement.DUE]
    assert harness.sender.in_flight == 0


async def test_an_expired_lease_is_not_sent() -> None:
    """A job whose lease has expired is skipped, because another worker may have it."""
    harness = Harness()
    harness.load(harness.endpoint("a"), 3, lease_ends_s=0.0)
    await settle()
    assert harness.calls("a") == 0
    assert harness.queues.held == 0


@pytest.mark.parametrize(("disabled", "deleted"), [(True, False), (False, True)])
async def test_jobs_of_an_uncallable_endpoint_are_not_sent(disabled: bool, deleted: bool) -> None:
    """Waiting jobs of a disabled endpoint are held; those of a deleted endpoint are discarded."""
    harness = Harness()
    limits = harness.endpoint("a", disabled=disabled, deleted=deleted)
    harness.load(limits, 2)
    harness.sender.on_endpoint_loaded(harness.cache.endpoints["wsp", "a"])
    assert [placement for _, placement in harness.released] == ([Placement.HELD] * 2 if disabled else [])
    assert [result.reason for result in harness.results if isinstance(result, Discarded)] == (
        ["endpoint_deleted"] * 2 if deleted else []
    )


async def test_lack_of_sockets_is_no_attempt() -> None:
    """If this machine has no free socket, the delivery is due again and no attempt is counted."""
    harness = Harness()
    harness.load(harness.endpoint("a"), 1)
    await settle()
    harness.http_client.open["a"].pop().set_exception(OSError("too many open files"))
    await settle()
    assert [placement for _, placement in harness.released] == [Placement.DUE]
    assert harness.results == []


async def test_drain_releases_waiting_jobs_and_cancels_calls() -> None:
    """A drain starts no calls: waiting jobs, and those whose call does not end in time, are due for other workers."""
    harness = Harness()
    harness.load(harness.endpoint("a"), 6)
    await settle()
    harness.http_client.respond("a")
    await settle()
    await harness.sender.drain(0)
    assert len([result for result in harness.results if isinstance(result, AttemptResult)]) == 1
    assert [placement for _, placement in harness.released] == [Placement.DUE] * 5
