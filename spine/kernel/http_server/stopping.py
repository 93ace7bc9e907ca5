"""The end of answers that have none of their own: a stream learns from its request's scope that the server stops."""

from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from spine.kernel.http_server.connections import Connections


class StoppingProtocol(HttpToolsProtocol):
    """Puts the event `spine.stopping` into the scope of each request. It is set when the server begins to stop."""

    limits: Connections

    def on_headers_complete(self) -> None:
        """Hand the request on, with the event."""
        cast("dict[str, Any]", self.scope)["spine.stopping"] = self.limits.stopping
        super().on_headers_complete()

    def shutdown(self) -> None:
        """The server waits for the answers that are under way from here on."""
        self.limits.stopping.set()
        super().shutdown()
