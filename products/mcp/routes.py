"""The routes of MCP. They are no part of the OpenAPI document: the protocol has its own description of the tools."""

from fastapi import APIRouter, Request, Response

from products.mcp.endpoint import METADATA_PATH, PATH, McpEndpoint
from spine.kernel.request_body import BodyRequest

router = APIRouter(include_in_schema=False)


@router.post(PATH)
@router.post(PATH + "/")
async def mcp(request: Request) -> Response:
    """Serve the Model Context Protocol over stateless HTTP. Streams and sessions, GET and DELETE, are not offered."""
    return await _endpoint(request).serve(BodyRequest(request.scope, request.receive))


@router.get(METADATA_PATH + PATH)
@router.get(METADATA_PATH)
async def protected_resource(request: Request) -> Response:
    """Say which keys and scopes the tools take (RFC 9728)."""
    return await _endpoint(request).metadata(request)


def _endpoint(request: Request) -> McpEndpoint:
    endpoint: McpEndpoint = request.app.state.mcp
    return endpoint
