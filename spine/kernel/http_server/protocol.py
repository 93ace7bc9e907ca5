"""The HTTP/1.1 connection of the API: uvicorn's protocol with limits on everything that arrives before a handler runs.

    head (bytes, header lines, URL, Host) ─► body (time; chunk extensions and trailers by bytes) ─► answer (time to take it)

httptools parses but limits nothing. Bytes are fed to it in pieces, so that a limit is checked before more is in memory, and
none are fed while requests of this connection wait for an earlier answer (pipelining, RFC 9112 section 9.3.2). A refusal is
a problem document. What the client still sends after it is read and dropped for `LINGER_S` or two bodies' bytes, because
closing with unread bytes would reset the connection and take the answer away (RFC 9112 section 9.6).
"""

import asyncio
import time
from enum import Enum
from math import inf
from typing import Any, Final, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from spine.kernel.errors import BadRequest, RequestTimeout, SpineError
from spine.kernel.http_server.connections import Connections
from spine.kernel.http_server.flow_control import FlowControl
from spine.kernel.http_server.refusals import check_head, not_http, refusal_response, too_many_bytes
from spine.kernel.http_server.stopping import StoppingProtocol

PIECE: Final = 4096
"""Bytes that are fed to the parser at once, unless they are known to belong to one body."""
LINGER_S: Final = 2.0


class _Phase(Enum):
    """The part of a request that the client sends."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"


class HttpProtocol(StoppingProtocol):
    """One connection. `limited_protocol` makes the class that uvicorn is given."""

    def __init__(self, config: Config, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self.read_deadline = inf
        self._phase = _Phase.IDLE
        self._turned = False
        self._rest = b""
        self._silent = 0
        self._body_left = 0
        self._dropped = 0
        self._refusal: SpineError | None = None
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, unless there are too many already."""
        stream = cast("asyncio.Transport", transport)  # uvloop's transport has no base class
        super().connection_made(stream)
        self.flow: FlowControl = FlowControl(stream, self.limits.settings.answer_timeout_s)
        self.read_deadline = time.monotonic() + self.limits.settings.head_timeout_s
        refusal = self.limits.add(self)
        if refusal is not None:
            self._refusal = refusal
            self._write_refusal(refusal)
            stream.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.limits.discard(self)
        self._rest = b""
        super().connection_lost(exc)

    @property
    def reading(self) -> bool:
        """True if bytes of the client are read as they arrive, so that a wait for them is its own."""
        return self._closing or not self.flow.read_paused

    @property
    def write_deadline(self) -> float:
        """The time by which the client must have taken what was sent to it."""
        return self.flow.write_deadline

    def data_received(self, data: bytes) -> None:
        """Feed the parser, or keep the bytes while earlier requests wait for their answers."""
        if self._ended:
            self._dropped += len(data)
            if self._dropped > 2 * self.limits.settings.max_body_bytes:
                self.transport.abort()
            return
        if not self._rest and len(data) <= PIECE and not self.pipeline:
            self._feed(data)
            return
        self._rest += data
        self._feed_rest()

    def _feed_rest(self) -> None:
        rest, fed = memoryview(self._rest), 0
        while fed < len(rest) and not self.pipeline and not self._ended:
            end = fed + max(PIECE, self._body_left)
            self._feed(rest[fed:end])
            fed = end
        self._rest = b"" if self._ended else bytes(rest[fed:])
        self._hold(bool(self._rest))

    @property
    def _ended(self) -> bool:
        """True if no further request is read from this connection."""
        return self._closing or self._refusal is not None

    def _hold(self, held: bool) -> None:
        self.flow.hold(held, len(self._newest.body) if self._newest is not None else 0)

    @property
    def _newest(self) -> RequestResponseCycle | None:
        """The newest request of the connection, answered or not."""
        return self.cycle

    def _feed(self, piece: bytes | memoryview) -> None:
        self._turned = False
        self._silent += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._closing = True  # the request is served as if it asked for no upgrade, and is the last one
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, SpineError) else not_http(error))
            return
        limits = self.limits.settings
        if self._silent > limits.max_header_bytes:
            self._refuse(too_many_bytes(b"" if self.headers else self.url, limits))
        elif self._turned and self._phase is not _Phase.IDLE:
            allowed_s = limits.head_timeout_s if self._phase is _Phase.HEAD else limits.body_timeout_s
            self.read_deadline = time.monotonic() + allowed_s

    def on_message_begin(self) -> None:
        """A request begins: the time for its head runs."""
        super().on_message_begin()
        self._phase, self._turned = _Phase.HEAD, True

    def on_headers_complete(self) -> None:
        """Check the head, then hand the request on. Later header lines are trailers and do not reach the request."""
        headers = self.headers
        names = [name for name, _ in headers]
        check_head(self.url, headers, names, self.limits.settings)
        self._body_left = int(headers[names.index(b"content-length")][1]) if b"content-length" in names else 0
        upgrade = self.parser.should_upgrade()
        if upgrade and (self._body_left or b"transfer-encoding" in names):
            # The parser takes the body of such a request for the other protocol's bytes.
            raise BadRequest("there is no upgrade here; leave the Upgrade header out", code="upgrade_refused")
        super().on_headers_complete()
        if upgrade:
            self.cycle.keep_alive = False
        self.headers = []
        self._phase, self._turned, self._silent, self._dropped = _Phase.BODY, True, 0, 0

    def on_body(self, body: bytes) -> None:
        """Hand the bytes on, or drop those of a request that is answered already."""
        self._silent = 0
        self._body_left = max(0, self._body_left - len(body))
        if self.cycle.response_complete:
            self._dropped += len(body)
            if self._dropped > 2 * self.limits.settings.max_body_bytes:
                raise BadRequest("the request was answered, and its body goes on", code="malformed_request")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here. The time until its answer is ours."""
        self._phase, self._silent, self._body_left = _Phase.IDLE, 0, 0
        self.read_deadline = inf
        super().on_message_complete()
        if self.cycle.response_complete:
            self._wait_for_next()

    def on_response_complete(self) -> None:
        """Start the next request of the pipeline, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._closing = True
            self.read_deadline = time.monotonic() + LINGER_S
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._write_refusal(self._refusal)
        elif self._phase is _Phase.IDLE:
            self._wait_for_next()
        if self._rest:
            self._feed_rest()

    def _wait_for_next(self) -> None:
        self.read_deadline = time.monotonic() + self.timeout_keep_alive

    def expire(self) -> None:
        """The client did not send its request, or not take its answer, in time."""
        if self.transport.is_closing() or self._closing or self._phase is _Phase.IDLE:
            self.drop()
        else:
            self._refuse(RequestTimeout())

    def drop(self) -> None:
        """Close the connection at once. What is not sent yet is lost if the client does not take it."""
        self._closing = True
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _refuse(self, error: SpineError) -> None:
        """Answer with the error, after the answers to the earlier requests of this connection, and close."""
        self._refusal, self._rest = error, b""
        self.read_deadline = inf
        cycle = self._newest
        if cycle is not None and self._phase is _Phase.BODY:  # the request at fault is the newest
            if self.pipeline:
                self.pipeline.popleft()
                return
            if cycle.response_complete:
                self._linger()
                return
            if cycle.response_started:
                cycle.keep_alive = False
                return
            cycle.disconnected = True
            cycle.message_event.set()
        elif cycle is not None and not cycle.response_complete:
            return
        self._write_refusal(error)

    def _write_refusal(self, error: SpineError) -> None:
        self.transport.write(refusal_response(error))
        self._linger()

    def _linger(self) -> None:
        """Send nothing more, and drop what arrives until the client closes or the time is over."""
        self._closing = True
        self.read_deadline = time.monotonic() + LINGER_S
        self._rest = b""
        self._hold(False)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()


def limited_protocol(connections: Connections) -> type[HttpProtocol]:
    """Return the protocol of one server, whose connections count together."""
    return type("LimitedHttpProtocol", (HttpProtocol,), {"limits": connections})
