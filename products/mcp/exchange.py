"""One authenticated request to /mcp, as the protocol server gets it."""

from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Scope

from spine.kernel.authentication import Caller
from spine.kernel.platform import Platform

SCOPE: Final = "spine.mcp"
"""The name of the exchange in the ASGI scope, which the SDK carries to the handlers."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The API that serves the request, its caller, its ASGI scope, and the bytes that a result may have."""

    app: ASGIApp
    platform: Platform
    caller: Caller
    scope: Scope
    max_result_bytes: int

    @property
    def request_id(self) -> str:
        """The id of the request to /mcp itself. The operation of a call has an id of its own."""
        request_id: str = self.scope["spine.request_id"]
        return request_id
