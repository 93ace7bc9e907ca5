"""A receiver of webhooks on this machine, as a subscriber writes one: it verifies, keeps what it got, and answers 200."""

import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

_MAX_BODY: Final = 1024 * 1024


class WebhookReceiver:
    """Receives on a free loopback port, in threads of its own, between `start` and `close`."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        """The verified events, in the order of their arrival. An event that arrives twice is here once."""
        self.refused = 0
        """Requests whose signature is wrong."""
        self._webhook: Webhook | None = None
        self._arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), _MAX_BODY))
                self.send_response(200 if receiver.receive(body, dict(self.headers)) else 400)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing is logged: the story prints what arrived."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The address for the endpoint."""
        return f"http://127.0.0.1:{self._server.server_port}/hooks"

    def start(self) -> None:
        """Listen. Requests are refused until `trust` is called."""
        self._thread.start()

    def trust(self, secret: str) -> None:
        """Verify with this secret from now on."""
        self._webhook = Webhook(secret)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def receive(self, body: bytes, headers: dict[str, str]) -> bool:
        """Keep the event if its signature is right. Returns whether it is."""
        if self._webhook is None:
            return False
        try:
            event: dict[str, Any] = self._webhook.verify(body, {name.lower(): value for name, value in headers.items()})
        except WebhookVerificationError:
            self.refused += 1
            return False
        with self._arrived:
            if all(known["id"] != event["id"] for known in self.events):
                self.events.append(event)
                self._arrived.notify_all()
        return True

    def wait_for(self, types: Iterable[str], timeout_s: float) -> set[str]:
        """Wait until an event of each type has arrived. Returns the types that are missing after the timeout."""
        wanted = set(types)

        def missing() -> set[str]:
            return wanted - {event["type"] for event in self.events}

        with self._arrived:
            self._arrived.wait_for(lambda: not missing(), timeout_s)
            return missing()
