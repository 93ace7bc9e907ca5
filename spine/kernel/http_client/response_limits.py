"""Limits of what a receiver may send around a response's body: a connector whose connections end a call past a limit.

aiohttp limits each header (8,190 bytes) and their number (128). It does not limit what comes before the final head
(informational responses, blank lines), nor chunk extensions, trailers and padding, which its parser skips.
"""

import asyncio
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import set_exception
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import DataQueue

MAX_INFORMATIONAL: Final = 8
"""Informational responses before the final one (RFC 9110, 15.2). Real receivers send one or two."""

READ_BUFFER_BYTES: Final = 64 * 1024
"""Half of what a call holds of an unread body. aiohttp's default is four times as much."""

# Until the final head, the parser gets so much at a time: one read of 256 KiB may hold 10,000 informational responses.
_HEAD_SLICE_BYTES: Final = 4096

_parse: Final = ResponseHandler.data_received
_feed: Final = DataQueue.feed_data


class InvalidBodyError(aiohttp.ClientPayloadError):
    """The head arrived, but the rest is not valid HTTP or is past a limit."""


class LimitedResponseHandler(ResponseHandler):
    """The protocol of a connection. It ends a call past a limit at once: `HttpProcessingError`, or `InvalidBodyError`.

    The bytes outside of the body may be `max_head_bytes`, and as many more as the body has: chunks of one byte are allowed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, max_head_bytes: int) -> None:
        super().__init__(loop)
        self._max_head_bytes = max_head_bytes
        self._counted: Any = None
        self._received = 0
        self._informational = 0
        self._final = False

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, and end the call if it is past a limit."""
        if self._parser is not self._counted:  # each call has a parser of its own
            self._counted = self._parser
            self._received = self._informational = 0
            self._final = False
        size = len(data)
        if self._final or size > _HEAD_SLICE_BYTES:
            self._parse_parts(data)
        else:
            self._received += size
            _parse(self, data)
            if self._informational or self._received > self._max_head_bytes:
                self._judge()

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Count a parsed head, before the call gets it."""
        if self._final:
            self._end_call("more than one response to one request")
            return
        if data[0].code > 199 or data[0].code == 101:
            self._final = True
        else:
            self._informational += 1
        _feed(self, data, size)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Fail the call. After the head its reader waits for the body, which aiohttp would end as a lost connection."""
        if isinstance(exc, HttpProcessingError):
            if self._payload is not None and not self._payload.is_eof():
                set_exception(self._payload, InvalidBodyError(exc.message))
                self._payload = None  # or the end of the connection would replace the exception
            if self.transport is not None:
                self.transport.abort()
        super().set_exception(exc, *cause)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of the parser, which refers to this connection."""
        super().connection_lost(exc)
        self._counted = None

    def _parse_parts(self, data: bytes) -> None:
        if self._final and data and self._payload is not None and self._payload.is_eof():
            self._end_call("bytes after the response")
        while len(data) > _HEAD_SLICE_BYTES and not self._final and self._exception is None:
            self._parse(data[:_HEAD_SLICE_BYTES])
            data = data[_HEAD_SLICE_BYTES:]
        if self._exception is None:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._received += len(data)
        _parse(self, data)
        if self._informational or self._received > self._max_head_bytes:
            self._judge()

    def _judge(self) -> None:
        if self._informational > MAX_INFORMATIONAL and not self._final:
            self._end_call(f"over {MAX_INFORMATIONAL} informational responses")
        # While reading is paused, the parser holds bytes of the body that are not counted as such yet.
        elif self._received > self._max_head_bytes and not self._reading_paused:
            body_bytes = self._payload.total_bytes if self._final and self._payload is not None else 0
            if self._received > self._max_head_bytes + 2 * body_bytes:
                self._end_call(f"over {self._max_head_bytes} bytes outside of the body")

    def _end_call(self, why: str) -> None:
        if self._exception is None:
            self.set_exception(HttpProcessingError(message=why))


class LimitedConnector(aiohttp.TCPConnector):
    """A connector whose connections keep these limits."""

    def __init__(self, *, max_head_bytes: int, **options: Any) -> None:
        super().__init__(**options)
        handler: Any = partial(LimitedResponseHandler, loop=self._loop, max_head_bytes=max_head_bytes)
        self._factory = handler
