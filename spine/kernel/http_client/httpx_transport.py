"""httpx's API over the guarded connector, for providers and tools that speak it."""

import ssl
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from spine.kernel.http_client.errors import error_code
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


def guarded_client(connector: aiohttp.TCPConnector, tls: ssl.SSLContext, settings: EgressSettings) -> httpx.AsyncClient:
    """A client on the door's connector: no redirects, no cookies, no proxies from the environment, bodies capped.

    Its errors tell apart what a sender must: ConnectError and ConnectTimeout mean that no byte of the request left,
    ReadError and ReadTimeout that it may have been acted on. `error_code` of an error's `__cause__` gives the code.
    """
    session = aiohttp.ClientSession(
        connector=connector,
        connector_owner=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=("Content-Type",),
    )
    return httpx.AsyncClient(
        transport=GuardedTransport(session, tls, settings.max_response_bytes),
        timeout=httpx.Timeout(settings.attempt_timeout_s, connect=settings.connect_timeout_s),
        headers={"Accept-Encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        trust_env=False,
    )


class GuardedTransport(AiohttpTransport):
    """httpx-aiohttp with errors that can be trusted: its own calls a refused or dropped connection ConnectTimeout."""

    def __init__(self, session: aiohttp.ClientSession, tls: ssl.SSLContext, max_body_bytes: int) -> None:
        super().__init__(verify=tls, client=session)
        self._max_body_bytes = max_body_bytes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One request; the body is read by the caller, up to the cap."""
        try:
            response = await super().handle_async_request(request)
        except httpx.TransportError as error:
            code = error_code(error.__cause__ or error)
            raised_as = _RAISED_AS.get(code or "", httpx.ConnectError)
            raise raised_as(f"{code}: {error}", request=request) from error.__cause__
        except aiohttp.ClientError as error:
            raise httpx.RemoteProtocolError(str(error), request=request) from error
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            # Never asked for, and httpx would unpack without a limit what fits under ours when packed.
            await response.aclose()
            raise httpx.RemoteProtocolError("the response is compressed, which was not asked for", request=request)
        response.stream = _Capped(response.stream, self._max_body_bytes)  # type: ignore[arg-type]
        return response


class _Capped(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        async for chunk in self._stream:
            total += len(chunk)
            if total > self._max_bytes:
                raise httpx.ReadError(f"response_too_large: over {self._max_bytes} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
