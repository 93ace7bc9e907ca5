"""A mail server on loopback that accepts every mail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.smtp import SMTP


@dataclass(slots=True)
class Mailbox:
    """The received envelopes, and the port of the server."""

    port: int = 0
    mails: list[Any] = field(default_factory=list)

    @property
    def account(self) -> dict[str, Any]:
        """A provider account that sends to this server, without encryption."""
        return {
            "channel": "email",
            "kind": "smtp",
            "credentials": {"host": "127.0.0.1", "port": self.port},
            "config": {"sender": "spine@example.com", "tls": "none"},
        }

    async def handle_DATA(self, _: Any, __: Any, envelope: Any) -> str:  # noqa: N802  # the name that aiosmtpd calls
        """Accept a mail."""
        self.mails.append(envelope)
        return "250 2.0.0 queued"


@asynccontextmanager
async def open_mailbox() -> AsyncIterator[Mailbox]:
    """Run the server until the block ends."""
    mailbox = Mailbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(mailbox, hostname="m.example.com", loop=loop), "127.0.0.1", 0)
    mailbox.port = server.sockets[0].getsockname()[1]
    try:
        yield mailbox
    finally:
        server.close()
