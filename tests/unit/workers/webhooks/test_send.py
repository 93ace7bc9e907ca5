"""The sender over a stand-in for the way out: who is called when, and what its calls do to the budgets."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from spine.kernel.http_client import HttpResponse
from spine.webhooks.signing import Signer, new_secret
from workers.heartbeat import Heartbeat
from workers.webhooks.endpoint_cache import Endpoint
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import AttemptResult, DeliveryJob, DeliveryResult, Discarded, EndpointLimits, Placement
from workers.webhooks.send import STARTS_A_PRIORITY_TURN, STARTS_A_TURN, Sender

NOW = datetime(2026, 11, 1, tzinfo=UTC)
FAR = 1e12


class Book:
    """Endpoints at hand."""

    def __init__(self) -> None:
        self.endpoints: dict[tuple[str, str], Endpoint] = {}

    def find(self, key: tuple[str, str], _: float) -> Endpoint | None:
        return self.endpoints.get(key)


class HttpClient:
    """Calls that end when they are told to."""

    def __init__(self) -> None:
        self.open: dict[str, list[asyncio.Future[Any]]] = {}

    async def post(self, url: str, *_: object, **__: object) -> HttpResponse:
        future: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()
        self.open.setdefault(url, []).append(future)
        return await future

    def response(self, url: str, duration_s: float = 0.01, status: int = 200) -> None:
        self.open[url].pop(0).set_result(HttpResponse(status, None, None, b"", NOW, duration_s))


class Bench:
    """A sender with all that it hands on."""

    def __init__(self, max_in_flight: int = 10) -> None:
        heartbeat = Heartbeat(cast("Any", None), "me")
        self.queues = EndpointQueues(heartbeat, 1000, 10**9)
        self.http_client = HttpClient()
        self.results: list[DeliveryResult] = []
        self.turned: list[tuple[DeliveryJob, Placement]] = []
        self.sender = Sender(
            cast("Any", self.http_client),
            self.queues,
            max_in_flight,
            self.results.append,
            lambda job, placement: self.turned.append((job, placement)),
            lambda: None,
        )
        self.cache = Book()
        self.sender.cache = cast("Any", self.cache)
        self.numbers: Iterator[int] = iter(range(10**6))

    def endpoint(self, id: str, cap: int = 5, *, disabled: bool = False, deleted: bool = False) -> EndpointLimits:
        self.cache.endpoints["wsp", id] = Endpoint(
            ("wsp", id), id, {}, Signer([new_secret()]), 1, cap, None, False, disabled, deleted, 0.0
        )
        return EndpointLimits("wsp", id, 1, cap, None)

    def load(self, limits: EndpointLimits, count: int, lease_ends_s: float = FAR, *, new: bool = False) -> None:
        for _ in range(count):
            n = next(self.numbers)
            assert self.queues.reserve(limits, 0.0) is Placement.LEASED
            job = DeliveryJob(
                "wsp", f"dlv_{n}", f"evt_{n}", "a.b", limits.id, 0, 1, None, NOW, b"{}", lease_ends_s, None
            )
            queue = self.queues.load(limits, job, 0.0, claimed=False)
        (self.sender.start_new if new else self.sender.pump)(queue)

    def calls(self, id: str) -> int:
        return len(self.http_client.open.get(id, []))


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_calls_to_an_endpoint_stay_below_its_cap() -> None:
    """First the trial's calls, after an answer the whole cap, never more."""
    bench = Bench(max_in_flight=100)
    bench.load(bench.endpoint("a", cap=6), 12)
    await settle()
    assert bench.calls("a") == 4
    bench.http_client.response("a")
    await settle()
    bench.sender.pump(next(iter(bench.queues)))
    await settle()
    assert bench.calls("a") == 6
    await bench.sender.drain(0)


async def test_the_process_cap_is_shared_in_turns() -> None:
    """When all calls of the process are taken, lanes that wait get the free ones in turn, one each."""
    bench = Bench(max_in_flight=2)
    bench.load(bench.endpoint("a"), 5)
    bench.load(bench.endpoint("b"), 5)
    await settle()
    assert (bench.calls("a"), bench.calls("b")) == (2, 0)
    for _ in range(2):
        bench.http_client.response("a")
        await settle()
    assert (bench.calls("a"), bench.calls("b")) == (1, 1)
    await bench.sender.drain(0)


async def test_a_lane_without_a_call_goes_first() -> None:
    """What comes to an idle endpoint overtakes lanes that wait for more calls than they have, even if they waited first."""
    bench = Bench(max_in_flight=2)
    bench.load(bench.endpoint("a"), 5)
    bench.load(bench.endpoint("b"), 1)
    await settle()
    bench.http_client.response("a")
    await settle()
    assert (bench.calls("a"), bench.calls("b")) == (1, 1)
    await bench.sender.drain(0)


@pytest.mark.parametrize(
    ("asked", "haste_s", "most"),
    [(False, 60, STARTS_A_TURN), (True, 60, STARTS_A_PRIORITY_TURN), (True, 0, STARTS_A_TURN)],
)
async def test_few_calls_start_in_one_turn(
    asked: bool, haste_s: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn of the event loop starts so many calls and no more, fewer in haste, which ends by itself; all start in the end."""
    monkeypatch.setattr("workers.webhooks.send.PRIORITY_S", haste_s)
    bench = Bench(max_in_flight=100)
    limits = bench.endpoint("a", cap=50)
    bench.queues.queue(limits).learn(0.01)
    if asked:
        bench.sender.prioritise_new()
    bench.load(limits, 40)
    starts = []
    for _ in range(100):
        before = bench.calls("a")
        await asyncio.sleep(0)
        starts.append(bench.calls("a") - before)
    assert sum(starts) == 40
    assert max(starts[2:]) == most  # the turn of the asking had begun as it was
    await bench.sender.drain(0)


async def test_what_is_new_starts_in_the_turn_in_which_it_came() -> None:
    """In haste a turn whose starts are used up has some left for new work, and starts no more than a usual turn with them."""
    bench = Bench(max_in_flight=100)
    old = bench.endpoint("old", cap=90)
    bench.queues.queue(old).learn(0.01)
    bench.sender.prioritise_new()
    bench.load(old, 90)
    await settle()
    fresh = [f"new{n}" for n in range(STARTS_A_TURN)]
    for id in fresh:
        bench.load(bench.endpoint(id), 1, new=True)
    before = bench.calls("old")
    await asyncio.sleep(0)
    starts = [bench.calls(id) for id in fresh]
    assert starts == [1] * (STARTS_A_TURN - STARTS_A_PRIORITY_TURN) + [0] * STARTS_A_PRIORITY_TURN
    assert sum(starts) + bench.calls("old") - before <= STARTS_A_TURN
    await bench.sender.drain(0)


async def test_slow_lanes_use_half_of_the_calls() -> None:
    """A lane known to be slow leaves the other half of the process's calls alone."""
    bench = Bench(max_in_flight=10)
    slow = bench.endpoint("slow", cap=20)
    queue = bench.queues.queue(slow)
    queue.learn(15.0)
    bench.queues.set_slow(queue, True)
    bench.load(slow, 20)
    good = bench.endpoint("good", cap=20)
    bench.queues.queue(good).learn(0.01)
    bench.load(good, 20)
    await settle()
    assert (bench.calls("slow"), bench.calls("good")) == (5, 5)
    await bench.sender.drain(0)


async def test_a_lapsed_lease_is_not_sent() -> None:
    """What could not be renewed may be somebody else's by now: it is passed over."""
    bench = Bench()
    bench.load(bench.endpoint("a"), 3, lease_ends_s=0.0)
    await settle()
    assert bench.calls("a") == 0
    assert bench.queues.held == 0


@pytest.mark.parametrize(("disabled", "deleted"), [(True, False), (False, True)])
async def test_what_may_not_be_called_goes_another_way(disabled: bool, deleted: bool) -> None:
    """What waits for a disabled endpoint is held; for a deleted one it ends."""
    bench = Bench()
    limits = bench.endpoint("a", disabled=disabled, deleted=deleted)
    bench.load(limits, 2)
    bench.sender.endpoint_loaded(bench.cache.endpoints["wsp", "a"])
    assert [placement for _, placement in bench.turned] == ([Placement.HELD] * 2 if disabled else [])
    assert [result.reason for result in bench.results if isinstance(result, Discarded)] == (
        ["endpoint_deleted"] * 2 if deleted else []
    )


async def test_no_socket_is_no_verdict() -> None:
    """When this machine is out of sockets the delivery goes back uncounted."""
    bench = Bench()
    bench.load(bench.endpoint("a"), 1)
    await settle()
    bench.http_client.open["a"].pop().set_exception(OSError("too many open files"))
    await settle()
    assert [placement for _, placement in bench.turned] == [Placement.DUE]
    assert bench.results == []


async def test_draining_gives_back_what_waits_and_cuts_off_what_hangs() -> None:
    """A drain starts nothing more: what waits is due for others, and so is what did not end in time."""
    bench = Bench()
    bench.load(bench.endpoint("a"), 6)
    await settle()
    bench.http_client.response("a")
    await settle()
    await bench.sender.drain(0)
    assert len([result for result in bench.results if isinstance(result, AttemptResult)]) == 1
    assert [placement for _, placement in bench.turned] == [Placement.DUE] * 5
