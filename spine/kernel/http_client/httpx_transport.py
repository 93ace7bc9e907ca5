"""An httpx client over the guarded connector, for providers and tools that use httpx's API."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from spine.kernel.http_client.errors import error_code
from spine.kernel.http_client.resolver import current_workspace
from spine.kernel.http_client.response_limits import READ_BUFFER_BYTES, InvalidBodyError
from spine.kernel.settings import EgressSettings

_RAISED_AS: dict[str, type[httpx.TransportError]] = {
    "connect_refused": httpx.ConnectError,
    "connect_unreachable": httpx.ConnectError,
    "dns_error": httpx.ConnectError,
    "egress_blocked": httpx.ConnectError,
    "tls_error": httpx.ConnectError,
    "connect_timeout": httpx.ConnectTimeout,
    "timeout": httpx.ReadTimeout,
    "connection_reset": httpx.ReadError,
    "invalid_response": httpx.RemoteProtocolError,
    "invalid_url": httpx.UnsupportedProtocol,
}


def guarded_client(
    connector: aiohttp.TCPConnector, tls: ssl.SSLContext, settings: EgressSettings, workspace_id: str
) -> httpx.AsyncClient:
    """Return a client on `connector` without redirects, cookies or environment proxies, and with a cap on bodies.

    The read time-out covers the whole call. Its errors show whether the request was sent: after ConnectError and
    ConnectTimeout no byte was sent, after ReadError and ReadTimeout the receiver may have acted on it. `error_code` of an
    error's `__cause__` returns the code.
    """
    session = aiohttp.ClientSession(
        connector=connector,
        connector_owner=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=READ_BUFFER_BYTES,
        trust_env=False,
        skip_auto_headers=("Content-Type",),
    )
    return httpx.AsyncClient(
        transport=GuardedTransport(session, tls, settings.max_response_bytes, workspace_id),
        timeout=httpx.Timeout(settings.attempt_timeout_s, connect=settings.connect_timeout_s),
        headers={"Accept-Encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        trust_env=False,
    )


class GuardedTransport(AiohttpTransport):
    """httpx-aiohttp with correct errors: the library raises ConnectTimeout for a refused or dropped connection.

    It also has one deadline for a call: aiohttp stops its read time-out at an informational response, and starts it anew
    with every byte.
    """

    def __init__(
        self, session: aiohttp.ClientSession, tls: ssl.SSLContext, max_body_bytes: int, workspace_id: str
    ) -> None:
        super().__init__(verify=tls, client=session)
        self._max_body_bytes = max_body_bytes
        self._workspace_id = workspace_id

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. The caller reads the body, up to the cap."""
        read_timeout_s: float | None = request.extensions.get("timeout", {}).get("read")
        deadline_s = None if read_timeout_s is None else asyncio.get_running_loop().time() + read_timeout_s
        current_workspace.set(self._workspace_id)
        try:
            async with asyncio.timeout_at(deadline_s):
                response = await super().handle_async_request(request)
        except TimeoutError as error:
            raise httpx.ReadTimeout(f"timeout: no response within {read_timeout_s} s", request=request) from error
        except httpx.TransportError as error:
            code = error_code(error.__cause__ or error)
            raised_as = _RAISED_AS.get(code or "", httpx.ConnectError)
            raise raised_as(f"{code}: {error}", request=request) from error.__cause__
        except aiohttp.ClientError as error:
            raise httpx.RemoteProtocolError(str(error), request=request) from error
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            # Not asked for: httpx would decompress without a limit a body that is below the cap when compressed.
            await response.aclose()
            raise httpx.RemoteProtocolError("the response is compressed, which was not asked for", request=request)
        response.stream = _Capped(response.stream, self._max_body_bytes, deadline_s)  # type: ignore[arg-type]
        return response


class _Capped(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, max_bytes: int, deadline_s: float | None) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._deadline_s = deadline_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        chunks = aiter(self._stream)
        while chunk := await self._read(chunks):
            total += len(chunk)
            if total > self._max_bytes:
                raise httpx.ReadError(f"response_too_large: over {self._max_bytes} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def _read(self, chunks: AsyncIterator[bytes]) -> bytes:
        """Return the next part of the body; nothing at its end."""
        try:
            async with asyncio.timeout_at(self._deadline_s):
                return await anext(chunks, b"")
        except TimeoutError as error:
            raise httpx.ReadTimeout("timeout: the body is not complete within the read time-out") from error
        except httpx.ReadError as error:
            if isinstance(error.__cause__, InvalidBodyError):
                raise httpx.RemoteProtocolError(f"invalid_response: {error}") from error.__cause__
            raise
