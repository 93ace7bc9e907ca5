"""`HttpClient`: sends one POST and says how it went; holds the connections and the guard."""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Final, Self

import aiohttp
import httpx
from yarl import URL

from policies.ip_addresses import blocked_text, opened
from policies.url_targets import TargetRefused, judge_addresses, known_addresses, target
from spine.kernel.http_client.errors import CALL_ERRORS, error_code
from spine.kernel.http_client.httpx_transport import guarded_client
from spine.kernel.http_client.response import HttpResponse
from spine.kernel.http_client.ssrf_guard import GuardedResolver, Judge, Lookup, SystemLookup, guarded_sockets
from spine.kernel.settings import EgressSettings

KEPT_BYTES: Final = 8192
"""How much of a response body is kept for the attempt log (webhooks.md, promise 7)."""

_NAMES_TTL_S: Final = 10
_NAMES_KEPT: Final = 10_000
_URLS_KEPT: Final = 10_000
# Below the 5 s after which common servers close an idle connection: a POST that meets the close is a failed attempt.
_IDLE_S: Final = 4.0
# Above any time-out in use: aiohttp otherwise rounds those over 5 s up to a whole second.
_NEVER_ROUND_S: Final = 3600.0
# Written by the caller or not at all; aiohttp's Accept-Encoding would ask for what is never decoded.
_NOT_ADDED: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class HttpClient:
    """The guarded way out, held for the life of a process: `async with Egress(settings) as egress`."""

    def __init__(self, settings: EgressSettings, *, lookup: Lookup | None = None) -> None:
        self._settings = settings
        self._allow = settings.egress_allow
        self._system_lookup = SystemLookup()
        self._lookup: Lookup = lookup or self._system_lookup
        self._urls: dict[str, URL | TargetRefused] = {}

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        if settings.egress_ca_file is not None:
            self._tls.load_verify_locations(settings.egress_ca_file)
        self._timeout = aiohttp.ClientTimeout(
            total=settings.attempt_timeout_s, connect=settings.connect_timeout_s, ceil_threshold=_NEVER_ROUND_S
        )
        self._connector = self._new_connector(partial(blocked_text, allow=self._allow))
        self._anywhere = self._new_session(self._connector)
        # Where https is required, plain http may go to the operator's own ranges alone, whatever its name says today.
        self._opened_only = self._new_session(self._new_connector(self._not_opened))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._anywhere.close()
        await self._opened_only.close()
        self._system_lookup.close()

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, https_required: bool = False
    ) -> HttpResponse:
        """POST `body` with these headers and nothing beside Host and Content-Length; never raises for a receiver.

        Raises OSError when this machine is out of sockets or memory, which is no verdict on anybody; a cancellation
        passes through. The error codes are those of `spine.kernel.http_client.errors`, and `response_too_large`.
        """
        started_at = datetime.now(UTC)
        start = perf_counter()
        status: int | None = None
        retry_after: str | None = None
        error: str | None = None
        excerpt = b""
        where = self._urls.get(url) or self._read_url(url)
        if isinstance(where, TargetRefused):
            return HttpResponse(None, where.code, None, b"", started_at, perf_counter() - start)
        session = self._opened_only if https_required and where.scheme == "http" else self._anywhere
        try:
            response = await session.post(where, data=body, headers=headers, allow_redirects=False)
            status = response.status
            retry_after = response.headers.get("Retry-After")
            try:
                excerpt, error = await self._read_body(response)
            finally:
                # A no-op after a whole body, whose connection has gone back to the pool; else it is closed.
                response.close()
        except CALL_ERRORS as fault:
            error = error_code(fault)
            if error is None:
                raise
        return HttpResponse(status, error, retry_after, excerpt, started_at, perf_counter() - start)

    async def check_target(self, url: str, *, https_required: bool = False) -> TargetRefused | None:
        """Why this URL may not be an endpoint's, resolving its name now; None when it may.

        A name that does not resolve today is no reason: its attempts will say `dns_error` for as long as that lasts.
        """
        judged = target(url, self._allow)
        if isinstance(judged, TargetRefused):
            return judged
        addresses = known_addresses(judged)
        if not addresses:
            try:
                addresses = tuple(await self._lookup(judged.host))
            except OSError:
                addresses = ()
        return judge_addresses(judged, addresses, self._allow, https_required=https_required)

    async def connect(self, host: str, port: int) -> socket.socket:
        """A connected socket for protocols other than HTTP: to an address that was checked, and to no other.

        Raises AddressBlockedError where none is permitted, OSError where none answers in time.
        """
        judge = partial(blocked_text, allow=self._allow)
        found = await GuardedResolver(self._lookup, judge).resolve(host, port)
        loop = asyncio.get_running_loop()
        last: OSError = OSError(f"{host} has no address")
        for one in found:
            opened_socket = guarded_sockets(judge)((one["family"], socket.SOCK_STREAM, 0, "", (one["host"], port)))
            opened_socket.setblocking(False)
            try:
                async with asyncio.timeout(self._settings.connect_timeout_s):
                    await loop.sock_connect(opened_socket, (one["host"], port))
            except OSError as error:
                opened_socket.close()
                last = error
            except BaseException:
                opened_socket.close()
                raise
            else:
                return opened_socket
        raise last

    def client(self) -> httpx.AsyncClient:
        """The same way out under httpx's API, for providers and tools; the caller closes it before this door."""
        return guarded_client(self._connector, self._tls, self._settings)

    async def _read_body(self, response: aiohttp.ClientResponse) -> tuple[bytes, str | None]:
        """The kept part of the body; the rest is read and dropped up to the cap, so that the connection can stay."""
        content = response.content
        cap = self._settings.max_response_bytes
        kept = b""
        total = 0
        while chunk := await content.readany():
            total += len(chunk)
            if len(kept) < KEPT_BYTES:
                kept = (kept + chunk)[:KEPT_BYTES]
            if total > cap:
                return kept, "response_too_large"
        return kept, None

    def _read_url(self, url: str) -> URL | TargetRefused:
        judged = target(url, self._allow)
        where = judged if isinstance(judged, TargetRefused) else URL(judged.url, encoded=True)
        if len(self._urls) >= _URLS_KEPT:
            self._urls.clear()
        self._urls[url] = where
        return where

    def _not_opened(self, address: str) -> str | None:
        return None if opened(address, self._allow) else "outside the ranges where plain http is allowed"

    def _new_connector(self, judge: Judge) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            ssl=self._tls,
            resolver=GuardedResolver(self._lookup, judge),
            socket_factory=guarded_sockets(judge),
            ttl_dns_cache=_NAMES_TTL_S,
            dns_cache_max_size=_NAMES_KEPT,
            keepalive_timeout=_IDLE_S,
            limit=0,  # caps are per endpoint, and kept by the lanes
            timeout_ceil_threshold=_NEVER_ROUND_S,
        )

    def _new_session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=_NOT_ADDED,
        )
