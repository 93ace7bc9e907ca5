"""The first keys, made once by the API's own signup, and what to try with them."""

import json
from pathlib import Path

import httpx

from spine.supervisor import secret_store


async def first_keys(address: str, path: Path, http: httpx.AsyncClient) -> str | None:
    """The test key of this data directory; signs up at the first start. None when signup is closed."""
    kept = secret_store.read(path)
    # The directory may have been given another database since.
    if not kept or await _is_unknown(kept["test_key"], address, http):
        answer = await http.post(f"{address}/v1/signup", json={"name": "My workspace", "email": "me@example.com"})
        if answer.status_code != httpx.codes.CREATED:
            return None
        signup = answer.json()
        kept = {
            "test_key": signup["test"]["api_key"],
            "test_workspace_id": signup["test"]["workspace_id"],
            "live_key": signup["live"]["api_key"],
            "live_workspace_id": signup["live"]["workspace_id"],
        }
        secret_store.write(path, json.dumps(kept, indent=2) + "\n")
    return kept["test_key"]


async def _is_unknown(key: str, address: str, http: httpx.AsyncClient) -> bool:
    answer = await http.get(f"{address}/v1/api_keys", headers={"Authorization": f"Bearer {key}"})
    return answer.status_code == httpx.codes.UNAUTHORIZED


def welcome(address: str, test_key: str | None, keys: Path) -> str:
    """What is printed once everything answers."""
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
