"""The HTTP server of the API: uvicorn with limits on what a connection may send, hold and leave unread."""

import uvicorn
from fastapi import FastAPI

from spine.kernel.http_server.connections import Connections
from spine.kernel.http_server.protocol import limited_protocol
from spine.kernel.settings import HttpSettings


def server_config(application: FastAPI, settings: HttpSettings) -> uvicorn.Config:
    """Return the configuration of a server, whose connections count together."""
    return uvicorn.Config(
        application,
        loop="uvloop",
        http=limited_protocol(Connections(settings)),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=10,
        server_header=False,
    )
