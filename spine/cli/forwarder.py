"""Forward an event to a developer's server as a signed webhook; one retry if there is no response."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson

from spine import __version__
from spine.cli.command import Environment
from spine.cli.errors import Failure
from spine.webhooks.signing import Signer, Verifier

_FIELDS: Final = (
    "id", "type", "timestamp", "workspace_id", "env", "api_version", "request_id", "actor", "sequence", "data",
)  # fmt: skip
_TIMEOUT: Final = httpx.Timeout(15, connect=5)
_RETRY_AFTER_S: Final = 1.0


@dataclass(frozen=True)
class Outcome:
    """The result of a call: a status code, or the error if there is none."""

    status_code: int | None
    error: str | None
    latency_s: float

    @property
    def is_accepted(self) -> bool:
        """True for a 2xx status, which would end a delivery as delivered."""
        return self.status_code is not None and 200 <= self.status_code < 300


def webhook_body(event: dict[str, Any]) -> bytes:
    """Return the body of the event's webhooks, from the event as the API returns it."""
    return orjson.dumps({name: event[name] for name in _FIELDS if name in event})


class Forwarder:
    """Posts events to one URL. No response of the server raises an error."""

    def __init__(self, url: str, secret: str, environment: Environment, note: Callable[[str], None]) -> None:
        self._url = url
        self._signer = Signer([secret])
        self._verifier = Verifier([secret])
        self._environment = environment
        self._note = note
        self._http = httpx.Client(timeout=_TIMEOUT, transport=environment.transport, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def forward(self, event: dict[str, Any]) -> Outcome:
        """Post the event. Without a response it is posted once more, because servers restart during development."""
        body = webhook_body(event)
        outcome = self._post(event["id"], body)
        if outcome.status_code is None:
            self._note(f"{self._url}: {outcome.error}; trying once more")
            self._environment.sleep(_RETRY_AFTER_S)
            outcome = self._post(event["id"], body)
            if outcome.status_code is None:
                self._note(f"{self._url} has still no answer; going on with the next event")
        return outcome

    def _post(self, id: str, body: bytes) -> Outcome:
        headers = self._sign(id, body)
        started_s = time.perf_counter()
        try:
            response = self._http.post(self._url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = "refused" if isinstance(error, httpx.ConnectError) else type(error).__name__
            return Outcome(None, f"{reason} ({error})", time.perf_counter() - started_s)
        return Outcome(response.status_code, None, time.perf_counter() - started_s)

    def _sign(self, id: str, body: bytes) -> dict[str, str]:
        now_s = self._environment.now().timestamp()
        signature = self._signer.sign(id, int(now_s), body)
        if not self._verifier.verify(id, str(int(now_s)), signature, body, now_s):
            raise Failure("a signature of our own does not verify; nothing was forwarded")
        return {
            "Content-Type": "application/json",
            "User-Agent": f"Spine/{__version__}",
            "webhook-id": id,
            "webhook-timestamp": str(int(now_s)),
            "webhook-signature": signature,
        }
