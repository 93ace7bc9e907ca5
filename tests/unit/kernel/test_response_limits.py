"""Laws of the protocol of a connection, without a network."""

import asyncio
from unittest.mock import Mock, patch

import pytest
from aiohttp.http_exceptions import HttpProcessingError

from spine.kernel.http_client.response_limits import MAX_INFORMATIONAL, LimitedResponseHandler


async def test_one_read_full_of_informational_responses_is_not_parsed_to_its_end() -> None:
    """Of a read of 256 KiB only the first 4 KiB are parsed, so that no receiver holds up the event loop."""
    transport = Mock()
    handler = LimitedResponseHandler(asyncio.get_running_loop(), max_head_bytes=32_768)
    handler.connection_made(transport)
    handler.set_response_params()
    handler.data_received(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000)
    assert MAX_INFORMATIONAL < len(handler) < 200
    transport.abort.assert_called_once_with()
    assert isinstance(handler.exception(), HttpProcessingError)


@pytest.mark.parametrize("body", [b"ok", b""])
async def test_each_call_has_limits_of_its_own(body: bytes) -> None:
    """A connection carries any number of calls: what one has received does not count for the next."""
    handler = LimitedResponseHandler(asyncio.get_running_loop(), max_head_bytes=8192)
    handler.connection_made(Mock())
    for _ in range(20):
        handler.set_response_params()
        handler.data_received(b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_INFORMATIONAL)
        handler.data_received(
            b"HTTP/1.1 200 OK\r\nX: %s\r\nContent-Length: %d\r\n\r\n%s" % (b"x" * 4000, len(body), body)
        )
        assert handler.exception() is None


async def test_what_comes_after_a_response_is_not_parsed() -> None:
    """An idle connection that gets bytes is closed, without a look at them."""
    transport = Mock()
    handler = LimitedResponseHandler(asyncio.get_running_loop(), max_head_bytes=8192)
    handler.connection_made(transport)
    handler.set_response_params()
    handler.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    with patch.object(handler, "feed_data") as parsed:
        handler.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 1000)
    parsed.assert_not_called()
    transport.abort.assert_called_once_with()
    assert len(handler) == 1
