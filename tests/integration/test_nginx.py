"""The shipped configuration of nginx in front of the API, against the floods that the API alone is tested with."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.api import Api, serve
from tests.raw_http import FLOODS, GET, MIB, POST, WAIT_S, closed, connected, flood
from tests.servers import ROOT

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine (apt-get install nginx-light)")
TOKEN = "a-long-random-word"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running nginx in front of an API."""

    url: str
    api: Api
    process: psutil.Process

    @property
    def memory(self) -> int:
        """Bytes of memory of nginx and of the API, which runs in this process."""
        processes = [psutil.Process(), self.process, *self.process.children()]
        return int(sum(process.memory_info().rss for process in processes))


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configuration(directory: Path, port: int, api: Api) -> str:
    """The shipped file with another port, another API and shorter times, in the least file around it."""
    site = (ROOT / "docs/nginx/spine.conf").read_text()
    for old, new in (
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("server 127.0.0.1:8080;", f"server {api.url.removeprefix('http://')};"),
        ("client_header_timeout 10s;", "client_header_timeout 2s;"),
        ("client_body_timeout 20s;", "client_body_timeout 2s;"),
        ("send_timeout 20s;", "send_timeout 2s;"),
    ):
        assert site.count(old) == 1
        site = site.replace(old, new)
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"daemon off; pid {directory}/pid; error_log {directory}/error.log; worker_processes 1;"
        f"events {{ worker_connections 4096; }}"
        f"http {{ access_log off; {temporary}\n{site} }}"
    )


@pytest.fixture(scope="module")
def proxy(module_database: str, module_redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """nginx with the shipped site, in front of an API that trusts it."""
    directory, port = tmp_path_factory.mktemp("nginx"), free_port()
    settings = {"SPINE_TRUSTED_PROXIES": "127.0.0.1/32", "SPINE_OPERATOR_TOKEN": TOKEN}
    with serve(module_database, module_redis_url, **settings) as api:
        (directory / "nginx.conf").write_text(configuration(directory, port, api))
        assert NGINX is not None
        process = subprocess.Popen([NGINX, "-p", str(directory), "-c", str(directory / "nginx.conf")])
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as http:
                assert http.get(f"{url}/readyz").status_code == 200
            yield Proxy(url, api, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(timeout=WAIT_S)


def test_signups_are_limited(proxy: Proxy) -> None:
    """A burst of signups of one address is refused after ten, whatever it writes into X-Forwarded-For.

    It stands before the tests whose floods are signups too.
    """
    body = {"name": "Acme", "email": "ann@example.com"}
    statuses = [
        httpx.post(f"{proxy.url}/v1/signup", json=body, headers={"X-Forwarded-For": f"203.0.113.{n}"}).status_code
        for n in range(20)
    ]
    assert re.fullmatch("(201,){10,12}(429,)+", "".join(f"{status}," for status in statuses))


@pytest.mark.parametrize("name", FLOODS)
def test_endless_heads_take_no_memory(name: str, proxy: Proxy) -> None:
    """Of 128 MiB nginx and the API keep next to nothing, and others are served meanwhile."""
    start, piece = FLOODS[name]
    before = proxy.memory
    with connected(proxy.url) as connection:
        connection.sendall(start)
        flood(connection, piece, 128 * MIB)
        assert httpx.get(f"{proxy.url}/livez").status_code == 200
        assert proxy.memory - before < 50 * MIB


@pytest.mark.parametrize("sent", [GET, POST + b'Content-Length: 100\r\n\r\n{"name"'], ids=["head", "body"])
def test_half_sent_requests_are_closed(sent: bytes, proxy: Proxy) -> None:
    """800 half-sent requests keep nobody out, hold no connection of the API, and are closed after their time."""
    opened = []
    try:
        for _ in range(800):
            connection = socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2])), timeout=WAIT_S)
            connection.sendall(sent)
            opened.append(connection)
        with httpx.Client(headers={"X-Forwarded-For": "198.51.100.7"}) as http:
            statuses = [http.get(f"{proxy.url}/livez").status_code for _ in range(20)]
        # Half-sent bodies count as requests of their address, so at its limit it is refused, and it alone.
        assert set(statuses) == {200} if sent == GET else set(statuses) <= {200, 429}
        assert httpx.get(f"{proxy.api.url}/livez").status_code == 200
        assert all(closed(connection) for connection in opened)
    finally:
        for connection in opened:
            connection.close()
    assert httpx.get(f"{proxy.url}/livez").status_code == 200


def test_unread_answers_take_no_memory(proxy: Proxy) -> None:
    """Pipelined requests whose answers are not read are read no further."""
    httpx.get(f"{proxy.url}/openapi.json")
    before = proxy.memory
    with connected(proxy.url) as connection:
        taken = flood(connection, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000, 64 * MIB)
        assert taken < 16 * MIB
        assert proxy.memory - before < 50 * MIB


@pytest.mark.parametrize("headers", [{}, {"X-Forwarded-For": "127.0.0.1"}, {"Host": "127.0.0.1"}, {"Via": ""}], ids=str)
def test_metrics_take_the_token(headers: dict[str, str], proxy: Proxy) -> None:
    """Through the proxy nobody reads /metrics without the token, whatever the headers say."""
    assert httpx.get(f"{proxy.url}/metrics", headers=headers).status_code == 403
    with_token = {**headers, "Authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{proxy.url}/metrics", headers=with_token).status_code == 200


def test_a_connection_serves_many_requests(proxy: Proxy) -> None:
    """The proxy's connections to the API are used again: many requests need few of them."""
    with httpx.Client() as http:
        assert {http.get(f"{proxy.url}/livez").status_code for _ in range(100)} == {200}
    port = int(proxy.api.url.rpartition(":")[2])
    connections = [c for c in psutil.Process().net_connections("tcp") if c.laddr.port == port and c.raddr]
    assert len([c for c in connections if c.status == psutil.CONN_ESTABLISHED]) < 50
