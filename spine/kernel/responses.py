"""Responses: the two media types of the API, and the HTTP response of a stored one."""

from typing import Final

from fastapi import Response

from spine.kernel.idempotency import StoredResponse

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"


def to_response(stored: StoredResponse, replayed: bool) -> Response:
    """Return a stored response for sending. A replay carries the header `Idempotent-Replayed: true`."""
    headers = {"Location": stored.location} if stored.location else {}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    return Response(stored.body, stored.status, headers, JSON if stored.status < 400 else PROBLEM)
