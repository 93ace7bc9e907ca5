"""`HttpClient`: sends POST requests over guarded connections and returns the outcome of each."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any, Final, Literal, Self

import aiohttp
import httpx
from yarl import URL

from policies.ip_addresses import blocked_text, opened
from policies.url_targets import TargetRefused, judge_addresses, known_addresses, target
from spine.kernel.http_client.errors import CALL_ERRORS, error_code
from spine.kernel.http_client.httpx_transport import guarded_client
from spine.kernel.http_client.name_servers import NameServers
from spine.kernel.http_client.resolver import Resolver, current_workspace
from spine.kernel.http_client.response import HttpResponse
from spine.kernel.http_client.response_limits import READ_BUFFER_BYTES, LimitedConnector
from spine.kernel.http_client.ssrf_guard import GuardedResolver, Judge, Lookup, guarded_sockets
from spine.kernel.settings import EgressSettings

KEPT_BYTES: Final = 8192
"""The bytes of a response body that the attempt log keeps (webhooks.md, promise 7)."""

_MAX_URLS: Final = 10_000
# Common servers close an idle connection after 5 s. A POST on a connection that is being closed is a failed attempt.
_KEEPALIVE_S: Final = 4.0
# Above every time-out in use: aiohttp rounds time-outs above this threshold up to a whole second (default 5 s).
_CEIL_THRESHOLD_S: Final = 3600.0
# aiohttp must not add these headers. Its Accept-Encoding would ask for compression, which is never decoded.
_SKIP_AUTO_HEADERS: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


_MAY_SEND: ContextVar[Callable[[], bool] | None] = ContextVar("may_send", default=None)


class NotSentError(Exception):
    """The caller no longer wanted the request when its connection stood. Nothing was written."""


class _Request(aiohttp.ClientRequest):
    """A request that asks `may_send` before it writes."""

    def send(self, conn: aiohttp.connector.Connection) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        """Return what writes the request. Raises NotSentError."""
        may_send = _MAY_SEND.get()
        if may_send is not None and not may_send():
            raise NotSentError
        return super().send(conn)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class HttpClient:
    """The guarded HTTP client of a process: `async with HttpClient(settings) as http_client`. `now` dates the calls."""

    def __init__(
        self, settings: EgressSettings, *, lookup: Lookup | None = None, now: Callable[[], datetime] = _utc_now
    ) -> None:
        self._settings = settings
        self._now = now
        self._allow = settings.egress_allow
        self._resolver = Resolver(NameServers(settings.dns_servers, settings.dns_timeout_s).ask, settings)
        self._lookup: Lookup = lookup or self._resolver
        self._urls: dict[str, URL | TargetRefused] = {}

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        if settings.egress_ca_file is not None:
            self._tls.load_verify_locations(settings.egress_ca_file)
        self._timeout = aiohttp.ClientTimeout(
            total=settings.attempt_timeout_s, connect=settings.connect_timeout_s, ceil_threshold=_CEIL_THRESHOLD_S
        )
        self._connector = self._new_connector(partial(blocked_text, allow=self._allow))
        self._session = self._new_session(self._connector)
        # If https is required, plain http may go only to the operator's allow list, whatever the name resolves to.
        self._allowed_session = self._new_session(self._new_connector(self._judge_allowed))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._allowed_session.close()
        await self._resolver.close()

    async def call(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        https_required: bool = False,
        workspace_id: str = "",
        may_send: Callable[[], bool] | None = None,
        method: Literal["POST", "GET"] = "POST",
    ) -> HttpResponse:
        """POST `body`, or GET, with these headers, plus only Host and Content-Length. Never raises for what a receiver does.

        The look-up of the host name counts for this workspace. `may_send` is asked when the connection stands, before the
        first byte of the request. If it returns False, nothing is written and NotSentError is raised: resolving the name and
        connecting may have taken seconds.

        Raises OSError if this machine is out of sockets or memory, which is not the receiver's fault. A cancellation
        propagates. Error codes are those of `spine.kernel.http_client.errors`, and `response_too_large`.
        """
        started_at = self._now()
        start = perf_counter()
        status: int | None = None
        retry_after: str | None = None
        error: str | None = None
        excerpt = b""
        parsed = self._urls.get(url) or self._parse_url(url)
        if isinstance(parsed, TargetRefused):
            return HttpResponse(None, parsed.code, None, b"", started_at, perf_counter() - start)
        session = self._allowed_session if https_required and parsed.scheme == "http" else self._session
        current_workspace.set(workspace_id)
        _MAY_SEND.set(may_send)
        try:
            response = await session.request(method, parsed, data=body or None, headers=headers, allow_redirects=False)
            status = response.status
            retry_after = response.headers.get("Retry-After")
            try:
                content = response.content
                if content.is_eof():  # most bodies arrive with their head
                    excerpt, error = self._cut(content.read_nowait())
                else:
                    excerpt, error = await self._read_body(content)
            finally:
                # Closes the connection unless the whole body was read; then it is back in the pool and this is a no-op.
                response.close()
        except CALL_ERRORS as fault:
            error = error_code(fault)
            if error is None:
                raise
        return HttpResponse(status, error, retry_after, excerpt, started_at, perf_counter() - start)

    async def check_target(
        self, url: str, *, https_required: bool = False, workspace_id: str = ""
    ) -> TargetRefused | None:
        """Resolve the host name now and return why this URL must not be an endpoint's; None if it may.

        A name that does not resolve by the deadline is not refused: its attempts fail with `dns_error` until it resolves.
        """
        judged = target(url, self._allow)
        if isinstance(judged, TargetRefused):
            return judged
        addresses = known_addresses(judged)
        if not addresses:
            current_workspace.set(workspace_id)
            try:
                addresses = tuple(await self._lookup(judged.host))
            except OSError:
                addresses = ()
        return judge_addresses(judged, addresses, self._allow, https_required=https_required)

    async def connect(self, host: str, port: int, *, workspace_id: str = "") -> socket.socket:
        """Return a connected socket for protocols other than HTTP. Connects only to checked addresses.

        Raises AddressBlockedError if no address is permitted, OSError if none accepts in time.
        """
        current_workspace.set(workspace_id)
        judge = partial(blocked_text, allow=self._allow)
        resolved = await GuardedResolver(self._lookup, judge).resolve(host, port)
        loop = asyncio.get_running_loop()
        last_error: OSError = OSError(f"{host} has no address")
        for result in resolved:
            peer = (result["host"], port)
            connection = guarded_sockets(judge)((result["family"], socket.SOCK_STREAM, 0, "", peer))
            connection.setblocking(False)
            try:
                async with asyncio.timeout(self._settings.connect_timeout_s):
                    await loop.sock_connect(connection, peer)
            except OSError as error:
                connection.close()
                last_error = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise last_error

    def client(self, *, workspace_id: str = "") -> httpx.AsyncClient:
        """Return an httpx client over the same guarded connections, for providers and tools. Close it before this client."""
        return guarded_client(self._connector, self._tls, self._settings, workspace_id)

    async def _read_body(self, content: aiohttp.StreamReader) -> tuple[bytes, str | None]:
        """Return the start of the body and an error code. Reads up to the cap, so that the connection can be reused."""
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

    def _cut(self, body: bytes) -> tuple[bytes, str | None]:
        """Return the start of a body, and an error code if it is over the cap."""
        error = "response_too_large" if len(body) > self._settings.max_response_bytes else None
        return body[:KEPT_BYTES], error

    def _parse_url(self, url: str) -> URL | TargetRefused:
        judged = target(url, self._allow)
        parsed = judged if isinstance(judged, TargetRefused) else URL(judged.url, encoded=True)
        if len(self._urls) >= _MAX_URLS:
            self._urls.clear()
        self._urls[url] = parsed
        return parsed

    def _judge_allowed(self, address: str) -> str | None:
        return None if opened(address, self._allow) else "outside the ranges where plain http is allowed"

    def _new_connector(self, judge: Judge) -> aiohttp.TCPConnector:
        return LimitedConnector(
            max_head_bytes=self._settings.max_response_head_bytes,
            ssl=self._tls,
            resolver=GuardedResolver(self._lookup, judge),
            socket_factory=guarded_sockets(judge),
            use_dns_cache=False,  # it would hand out addresses for longer than the resolver does
            keepalive_timeout=_KEEPALIVE_S,
            limit=0,  # no limit: the endpoint queues limit concurrent calls per endpoint
            timeout_ceil_threshold=_CEIL_THRESHOLD_S,
        )

    def _new_session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            request_class=_Request,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            trust_env=False,
            skip_auto_headers=_SKIP_AUTO_HEADERS,
        )
