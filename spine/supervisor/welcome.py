"""The first API keys, created once by the API's signup, and the text that is printed after the start."""

import json
from pathlib import Path

import httpx

from spine.supervisor import secret_store


async def load_or_create_test_key(address: str, path: Path, http: httpx.AsyncClient) -> str | None:
    """Return the test key of this data directory. The first start signs up. None if signup is closed."""
    stored = secret_store.read(path)
    # The directory may have another database since the last start.
    if not stored or await _is_rejected(stored["test_key"], address, http):
        response = await http.post(f"{address}/v1/signup", json={"name": "My workspace", "email": "me@example.com"})
        if response.status_code != httpx.codes.CREATED:
            return None
        signup = response.json()
        stored = {
            "test_key": signup["test"]["api_key"],
            "test_workspace_id": signup["test"]["workspace_id"],
            "live_key": signup["live"]["api_key"],
            "live_workspace_id": signup["live"]["workspace_id"],
        }
        secret_store.write(path, json.dumps(stored, indent=2) + "\n")
    return stored["test_key"]


async def _is_rejected(key: str, address: str, http: httpx.AsyncClient) -> bool:
    response = await http.get(f"{address}/v1/api_keys", headers={"Authorization": f"Bearer {key}"})
    return response.status_code == httpx.codes.UNAUTHORIZED


def format_welcome(address: str, test_key: str | None, keys: Path) -> str:
    """Format the text that is printed when everything is ready."""
    if test_key is None:
        return f"Spine is running at {address}\nsignup is closed; make a key with: spine keys create"
    return f"""
Spine is running at {address}   (Ctrl-C stops it)
your test key: {test_key}   (kept in {keys})
try it:
  curl -X POST {address}/v1/events \\
    -H 'Authorization: Bearer {test_key}' \\
    -H "Idempotency-Key: try-$(date +%s)" -H 'Content-Type: application/json' \\
    -d '{{"type": "order.paid", "data": {{"order": "A-1", "total": 42}}}}'
"""
