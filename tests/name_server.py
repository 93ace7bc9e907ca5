"""A name server on this machine, over UDP and TCP, that answers, denies, fails or keeps silent as told."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

SILENT = "silent"
FAILS = "fails"
LONG = "long"
"""Answers over UDP that the addresses are too many for it."""


@dataclass
class NameServer:
    """What it says of each name: addresses, or one of the words above. Names that it does not know do not exist."""

    names: dict[str, list[str] | str] = field(default_factory=dict)
    long: dict[str, list[str]] = field(default_factory=dict)
    port: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    """The questions for IPv4 addresses, by name."""
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)

    def respond(self, question: bytes, *, tcp: bool = False) -> bytes | None:
        """Return the response to a question; None for silence."""
        query = dns.message.from_wire(question)
        [asked] = query.question
        name = asked.name.to_text(omit_final_dot=True)
        if asked.rdtype == dns.rdatatype.A:
            self.asked[name] += 1
            self.was_asked.set()
        known = self.names.get(name)
        response = dns.message.make_response(query)
        if known == SILENT:
            return None
        if known == FAILS:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif known is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif known == LONG and not tcp:
            response.flags |= dns.flags.TC
        elif asked.rdtype == dns.rdatatype.A:
            addresses = self.long[name] if isinstance(known, str) else known
            response.answer.append(dns.rrset.from_text_list(asked.name, 1, "IN", "A", addresses))
        return response.to_wire(max_size=65535)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = self._server.respond(data)
        if response is not None:
            self._transport.sendto(response, addr)  # type: ignore[attr-defined]  # a datagram transport


@asynccontextmanager
async def name_server(**names: list[str] | str) -> AsyncIterator[NameServer]:
    """A name server for `<name>.example`."""
    server = NameServer({f"{name}.example": known for name, known in names.items()})

    async def over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2))
        response = server.respond(await reader.readexactly(length), tcp=True) or b""
        writer.write(len(response).to_bytes(2) + response)
        writer.close()

    tcp = await asyncio.start_server(over_tcp, "127.0.0.1", 0)
    server.port = tcp.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Udp(server), local_addr=("127.0.0.1", server.port)
    )
    try:
        yield server
    finally:
        transport.close()
        tcp.close()
