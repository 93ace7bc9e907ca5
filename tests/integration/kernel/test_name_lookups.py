"""Host names of calls, resolved by a real name server on this machine."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from spine.kernel.http_client import HttpClient, name_servers
from spine.kernel.http_client.name_servers import MAX_ADDRESSES, NameServers
from spine.kernel.http_client.resolver import Resolver
from spine.kernel.settings import EgressSettings
from tests.name_server import FAILS, LONG, SILENT, NameServer, name_server
from tests.raw_receiver import BODY, HEADERS, LOOPBACK, OK, client, receiver, responds

CLOSED = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def client_of(server: NameServer, *allow: str, **settings: Any) -> HttpClient:
    """A client that asks this name server."""
    return client(*(allow or (LOOPBACK,)), dns_servers=(("127.0.0.1", server.port),), **settings)


async def test_dead_names_of_one_workspace_hold_up_no_other() -> None:
    """While 60 names of one workspace get no answer, another workspace's receiver is called."""
    dead = {f"dead-{n}": SILENT for n in range(60)}
    long_s = {"dns_timeout_s": 60, "connect_timeout_s": 60, "attempt_timeout_s": 60}
    async with (
        name_server(healthy=["127.0.0.1"], **dead) as names,
        receiver(responds(OK)) as server,
        client_of(names, **long_s) as http_client,
    ):
        calls = [
            asyncio.create_task(
                http_client.call(server.url(host=f"{name}.example"), HEADERS, BODY, workspace_id="wsp_dead")
            )
            for name in dead
        ]
        await names.was_asked.wait()
        response = await http_client.call(server.url(host="healthy.example"), HEADERS, BODY, workspace_id="wsp_healthy")
        assert response.status == 200
        assert not any(call.done() for call in calls)
        assert len(set(names.asked) - {"healthy.example"}) == 32
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_a_silent_name_server_is_a_dns_error() -> None:
    """A look-up ends at its own deadline, before the one of the connection; so does the check when an endpoint is made."""
    async with (
        name_server(dead=SILENT) as names,
        client_of(names, dns_timeout_s=0.3, connect_timeout_s=60, attempt_timeout_s=60) as http_client,
    ):
        assert (await http_client.call("http://dead.example/", HEADERS, BODY)).error == "dns_error"
        assert await http_client.check_target("https://dead.example/") is None
        refused = await http_client.check_target("http://dead.example/", https_required=True)
        assert refused is not None
        assert refused.code == "egress_blocked"
        with pytest.raises(OSError, match=r"dead\.example"):
            await http_client.connect("dead.example", 25)


@pytest.mark.parametrize("answer", [FAILS, None])
async def test_a_failure_is_asked_for_once(answer: str | None) -> None:
    """Calls to a name that does not exist, or whose name servers fail, share one question for some seconds."""
    async with name_server(**({"x": answer} if answer else {})) as names, client_of(names) as http_client:
        responses = [await http_client.call("http://x.example/", HEADERS, BODY) for _ in range(5)]
    assert [response.error for response in responses] == ["dns_error"] * 5
    assert names.asked == {"x.example": 1}


async def test_equal_names_are_asked_for_once() -> None:
    """Twenty calls at once to one new name ask one question, and so do the calls after them on new connections."""
    async with (
        name_server(x=["127.0.0.1"]) as names,
        receiver(responds(CLOSED)) as server,
        client_of(names) as http_client,
    ):
        url = server.url(host="x.example")
        responses = await asyncio.gather(*(http_client.call(url, HEADERS, BODY) for _ in range(20)))
        responses.append(await http_client.call(url, HEADERS, BODY))
    assert [response.status for response in responses] == [200] * 21
    assert server.connections == 21
    assert names.asked == {"x.example": 1}


async def test_the_last_addresses_are_called_while_the_name_server_is_away() -> None:
    """A receiver goes on getting its events although its name servers do not answer any more."""
    now_s = 1000.0
    async with name_server(x=["127.0.0.1"]) as names, receiver(responds(CLOSED)) as server:
        settings = EgressSettings(dns_timeout_s=0.3, dns_max_stale_s=600)
        resolver = Resolver(NameServers([("127.0.0.1", names.port)], 0.3).ask, settings, lambda: now_s)
        async with client(LOOPBACK, lookup=resolver) as http_client:
            url = server.url(host="x.example")
            assert (await http_client.call(url, HEADERS, BODY)).status == 200
            names.names["x.example"] = SILENT
            now_s += 60
            assert [(await http_client.call(url, HEADERS, BODY)).status for _ in range(5)] == [200] * 5
            now_s += 600
            assert (await http_client.call(url, HEADERS, BODY)).error == "dns_error"
        await resolver.close()


async def test_a_kept_address_is_judged_at_every_use() -> None:
    """An address that must not be called is not called, whether it has just been resolved or is kept."""
    async with (
        name_server(inside=["127.0.0.1"]) as names,
        receiver(responds(OK)) as server,
        client_of(names, "192.0.2.0/24") as http_client,
    ):
        url = server.url(host="inside.example")
        responses = [await http_client.call(url, HEADERS, BODY) for _ in range(3)]
        refused = await http_client.check_target(url)
    assert [response.error for response in responses] == ["egress_blocked"] * 3
    assert refused is not None
    assert (names.asked["inside.example"], server.connections) == (1, 0)


async def test_a_long_answer_comes_over_tcp() -> None:
    """More addresses than UDP carries are read over TCP, 32 are kept; an answer that would hold up the event loop is none."""
    async with name_server(some=LONG, many=LONG) as names:
        names.long = {
            "some.example": [f"127.0.0.{n}" for n in range(1, 101)],
            "many.example": [f"127.0.{n // 250}.{n % 250}" for n in range(1000)],
        }
        servers = NameServers([("127.0.0.1", names.port)], 5)
        addresses = (await servers.ask("some.example")).addresses
        assert len(addresses) == MAX_ADDRESSES
        assert set(addresses) < set(names.long["some.example"])
        with pytest.raises(OSError, match=r"many\.example"):
            await servers.ask("many.example")


async def test_etc_hosts_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in /etc/hosts, literals and localhost are not asked for; a change of the file counts from the next look-up on."""
    hosts = tmp_path / "hosts"
    monkeypatch.setattr(name_servers, "_HOSTS", hosts)
    async with name_server(second=["127.0.0.9"]) as names:
        servers = NameServers([("127.0.0.1", names.port)], 5)
        hosts.write_text("# ours\n127.0.0.2\tFirst.example alias # no\n::1 first.example\nnonsense second.example\n")
        found = {
            host: (await servers.ask(host)).addresses
            for host in ("first.example", "ALIAS", "localhost", "a.localhost", "127.0.0.5", "::1")
        }
        assert found == {
            "first.example": ("127.0.0.2", "::1"),
            "ALIAS": ("127.0.0.2",),
            "localhost": ("127.0.0.1", "::1"),
            "a.localhost": ("127.0.0.1", "::1"),
            "127.0.0.5": ("127.0.0.5",),
            "::1": ("::1",),
        }
        assert not names.asked
        assert (await servers.ask("second.example")).addresses == ("127.0.0.9",)
        hosts.write_text("127.0.0.3 first.example second.example\n# longer than before\n")
        assert (await servers.ask("second.example")).addresses == ("127.0.0.3",)


async def test_search_domains_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without a dot is looked for in the search domains of /etc/resolv.conf, as the system does."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\nsearch example\n")
    monkeypatch.setattr(name_servers, "_RESOLV_CONF", resolv_conf)
    async with name_server(api=["127.0.0.1"]) as names:
        monkeypatch.setattr(name_servers, "_DNS_PORT", names.port)
        assert (await NameServers([], 5).ask("api")).addresses == ("127.0.0.1",)
