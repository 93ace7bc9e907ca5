"""Laws of the resolver, with a fake that answers for the name servers and a clock that the test moves."""

import asyncio
import errno
from collections import Counter

import pytest

from spine.kernel.http_client import resolver as module
from spine.kernel.http_client.name_servers import Answer, NameNotFoundError, NameServersFailedError
from spine.kernel.http_client.resolver import Resolver, current_workspace
from spine.kernel.settings import EgressSettings


class NameServersFake:
    """Gives each name its answer, or raises its error. A name without either waits until the test has told."""

    def __init__(self) -> None:
        self.says: dict[str, Answer | OSError] = {}
        self.asked: Counter[str] = Counter()
        self.told = asyncio.Event()
        self.now_s = 1000.0

    async def ask(self, host: str) -> Answer:
        self.asked[host] += 1
        while host not in self.says:
            await self.told.wait()
        said = self.says[host]
        if isinstance(said, OSError):
            raise said
        return said

    def tell(self, host: str, said: Answer | OSError) -> None:
        """Answer all who wait for this name."""
        self.says[host] = said
        self.told.set()
        self.told = asyncio.Event()

    def resolver(self, **settings: float) -> Resolver:
        return Resolver(self.ask, EgressSettings(**{"dns_timeout_s": 20, **settings}), lambda: self.now_s)  # type: ignore[arg-type]  # numbers of both kinds


async def resolve(resolver: Resolver, host: str, workspace_id: str = "wsp_1") -> list[str] | str:
    """Look a name up for a workspace; return the addresses, or the name of the error."""
    current_workspace.set(workspace_id)
    try:
        return await resolver(host)
    except OSError as error:
        return type(error).__name__


def start(resolver: Resolver, *hosts: str, workspace_id: str = "wsp_1") -> list[asyncio.Task[list[str] | str]]:
    """Start look-ups of these names at once."""
    return [asyncio.create_task(resolve(resolver, host, workspace_id)) for host in hosts]


async def settle() -> None:
    """Let all tasks run until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_equal_lookups_are_one() -> None:
    """Callers of one name at the same time share a look-up, across workspaces too."""
    servers = NameServersFake()
    resolver = servers.resolver(dns_lookups_per_workspace=1)
    waiting = [*start(resolver, "a"), *start(resolver, "a", workspace_id="wsp_2")]
    await settle()
    servers.tell("a", Answer(("192.0.2.1",), 60))
    assert await asyncio.gather(*waiting) == [["192.0.2.1"]] * 2
    assert servers.asked == {"a": 1}


async def test_a_running_lookup_is_joined_without_a_turn() -> None:
    """A workspace whose turns are all taken gets what another one is already looking up."""
    servers = NameServersFake()
    resolver = servers.resolver(dns_lookups_per_workspace=1)
    running = start(resolver, "a")
    dead = start(resolver, "dead", workspace_id="wsp_2")
    await settle()
    joined = start(resolver, "a", workspace_id="wsp_2")
    await settle()
    servers.tell("a", Answer(("192.0.2.1",), 60))
    async with asyncio.timeout(10):  # half of the deadline of a look-up
        assert await asyncio.gather(*running, *joined) == [["192.0.2.1"]] * 2
    servers.tell("dead", NameServersFailedError("dead"))
    await asyncio.gather(*dead)


async def test_a_workspace_waits_for_its_own_dead_names_only() -> None:
    """A workspace has so many look-ups at once; the others of it wait, and those of another workspace do not."""
    servers = NameServersFake()
    servers.tell("healthy", Answer(("192.0.2.1",), 60))
    resolver = servers.resolver(dns_lookups_per_workspace=4, dns_lookups=6)
    dead = start(resolver, *(f"dead-{n}" for n in range(40)))
    own = start(resolver, "own")
    await settle()
    assert len(servers.asked) == 4
    assert await resolve(resolver, "healthy", "wsp_2") == ["192.0.2.1"]
    assert not any(task.done() for task in dead)
    for n in range(40):
        servers.tell(f"dead-{n}", NameServersFailedError("dead"))
    servers.tell("own", Answer(("192.0.2.2",), 60))
    assert await asyncio.gather(*dead, *own) == ["NameServersFailedError"] * 40 + [["192.0.2.2"]]


async def test_a_name_that_waits_for_its_turn_does_not_hold_up_others() -> None:
    """A workspace asks for a name that another one has in its queue behind dead names."""
    servers = NameServersFake()
    servers.tell("shared", Answer(("192.0.2.1",), 60))
    resolver = servers.resolver(dns_lookups_per_workspace=1)
    waiting = start(resolver, "dead", "shared")
    await settle()
    assert await resolve(resolver, "shared", "wsp_2") == ["192.0.2.1"]
    servers.tell("dead", NameServersFailedError("dead"))
    assert await asyncio.gather(*waiting) == ["NameServersFailedError", ["192.0.2.1"]]
    assert servers.asked["shared"] == 1


async def test_all_workspaces_together_have_a_bound() -> None:
    """A process makes so many look-ups at once, whoever wants them."""
    servers = NameServersFake()
    resolver = servers.resolver(dns_lookups_per_workspace=4, dns_lookups=6)
    waiting = [task for n in range(5) for task in start(resolver, f"a{n}", f"b{n}", workspace_id=f"wsp_{n}")]
    await settle()
    assert len(servers.asked) == 6
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await resolver.close()
    servers.tell("c", Answer(("192.0.2.1",), 60))
    assert await resolve(resolver, "c") == ["192.0.2.1"]  # every turn was given back


async def test_a_lookup_ends_at_its_deadline() -> None:
    """A name whose servers are silent, and one that gets no turn, fail at the deadline."""
    resolver = NameServersFake().resolver(dns_timeout_s=0.05, dns_lookups_per_workspace=1)
    assert await asyncio.gather(*start(resolver, "silent", "queued")) == ["NameServersFailedError"] * 2
    await resolver.close()


async def test_an_answer_is_kept_for_its_ttl_within_bounds() -> None:
    """A TTL of 60 s is kept for 60 s, one of 0 s for 10 s and one of a week for 300 s."""
    servers = NameServersFake()
    resolver = servers.resolver()
    for host, ttl_s, kept_s in (("a", 60, 60), ("b", 0, 10), ("c", 604_800, 300)):
        servers.tell(host, Answer(("192.0.2.1",), ttl_s))
        await resolve(resolver, host)
        servers.now_s += kept_s - 1
        assert await resolve(resolver, host) == ["192.0.2.1"]
        assert servers.asked[host] == 1
        servers.tell(host, Answer(("192.0.2.2",), ttl_s))
        servers.now_s += 1
        assert await resolve(resolver, host) == ["192.0.2.2"]


async def test_a_failure_is_kept_for_a_short_time_that_grows() -> None:
    """Names that do not exist, and names whose servers fail, are asked for again after 5, 10, 20, 30, 30 s."""
    for error in (NameNotFoundError("x"), NameServersFailedError("x")):
        servers = NameServersFake()
        servers.tell("x", error)
        resolver = servers.resolver()
        for times, kept_s in enumerate((5, 10, 20, 30, 30), start=1):
            for _ in range(3):
                assert await resolve(resolver, "x") == type(error).__name__
            assert servers.asked["x"] == times
            servers.now_s += kept_s - 1
            assert await resolve(resolver, "x") == type(error).__name__
            assert servers.asked["x"] == times
            servers.now_s += 1
        servers.tell("x", Answer(("192.0.2.1",), 60))
        assert await resolve(resolver, "x") == ["192.0.2.1"]


async def test_the_last_addresses_are_used_while_the_name_servers_fail() -> None:
    """For as long as the operator allows, and without a look-up for each call."""
    servers = NameServersFake()
    servers.tell("x", Answer(("192.0.2.1",), 60))
    resolver = servers.resolver(dns_max_stale_s=600)
    await resolve(resolver, "x")
    servers.tell("x", NameServersFailedError("x"))
    servers.now_s += 61
    assert [await resolve(resolver, "x") for _ in range(10)] == [["192.0.2.1"]] * 10
    assert servers.asked["x"] == 2
    servers.now_s += 600
    assert await resolve(resolver, "x") == "NameServersFailedError"


async def test_a_denied_name_has_no_last_addresses() -> None:
    """Its owner has taken the name away, so its old addresses are not called."""
    servers = NameServersFake()
    servers.tell("x", Answer(("192.0.2.1",), 60))
    resolver = servers.resolver()
    await resolve(resolver, "x")
    servers.tell("x", NameNotFoundError("x"))
    servers.now_s += 61
    assert await resolve(resolver, "x") == "NameNotFoundError"
    servers.tell("x", NameServersFailedError("x"))
    servers.now_s += 10
    assert await resolve(resolver, "x") == "NameServersFailedError"


async def test_names_that_fail_push_no_name_out_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds have a bound of their own."""
    monkeypatch.setattr(module, "_MAX_NAMES", 3)
    servers = NameServersFake()
    servers.tell("x", Answer(("192.0.2.1",), 60))
    resolver = servers.resolver()
    await resolve(resolver, "x")
    for n in range(5):
        servers.tell(f"dead-{n}", NameNotFoundError("dead"))
        await resolve(resolver, f"dead-{n}")
    await resolve(resolver, "x")
    await resolve(resolver, "dead-4")
    await resolve(resolver, "dead-0")
    assert (servers.asked["x"], servers.asked["dead-4"], servers.asked["dead-0"]) == (1, 1, 2)


async def test_a_fault_of_this_machine_is_not_kept() -> None:
    """Without a socket for the question nothing is known of the name."""
    servers = NameServersFake()
    servers.tell("x", OSError(errno.EMFILE, "too many open files"))
    resolver = servers.resolver()
    assert [await resolve(resolver, "x") for _ in range(2)] == ["OSError"] * 2
    assert servers.asked["x"] == 2
