"""The bare client loop as a process: aiohttp alone posts the same bytes to the same receiver, and stores nothing.

It is the reference for the rate of deliveries: the same HTTP library, one process, the same number of concurrent calls.
Requests are lines of JSON on standard input: `{"urls": […], "calls": n, "at_once": n, "body_bytes": n}`.
"""

import asyncio
import os
import ssl
import sys
import time

import aiohttp
import orjson
import uvloop
from yarl import URL

from spine.kernel import ids


async def _post(session: aiohttp.ClientSession, request: dict[str, int | list[str]]) -> dict[str, float]:
    urls = [URL(url) for url in request["urls"]]  # type: ignore[union-attr]  # the only list of the request
    calls, at_once, size = (int(request[name]) for name in ("calls", "at_once", "body_bytes"))  # type: ignore[arg-type]
    body = b"x" * size
    message_ids = [ids.mint("evt") for _ in range(calls)]
    numbers = iter(range(calls))

    async def post_sequentially(url: URL) -> None:
        for n in numbers:
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "Spine/0.1",
                "webhook-id": message_ids[n],
                "webhook-timestamp": "1760000000",
                "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
            }
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                await response.read()

    start, start_cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(post_sequentially(urls[n % len(urls)]) for n in range(at_once)))
    return {"seconds": time.perf_counter() - start, "cpu_s": time.process_time() - start_cpu}


async def main(ca_file: str | None) -> None:
    """Handle requests until standard input ends."""
    tls = ssl.create_default_context(cafile=ca_file)
    requests = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), os.fdopen(0, "rb", 0))
    connector = aiohttp.TCPConnector(limit=0, ssl=tls)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=("Accept", "Accept-Encoding"),
    ) as session:
        while line := await requests.readline():
            answer = orjson.dumps(await _post(session, orjson.loads(line)))
            sys.stdout.buffer.write(len(answer).to_bytes(8, "big") + answer)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
