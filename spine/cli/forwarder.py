"""One event to a developer's own server, as a webhook: signed, verified, posted, once more when refused."""

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
    """What the server made of it: a status code, or why there is none."""

    status_code: int | None
    error: str | None
    latency_s: float

    @property
    def is_taken(self) -> bool:
        """Whether a delivery would have been delivered."""
        return self.status_code is not None and 200 <= self.status_code < 300


def webhook_body(event: dict[str, Any]) -> bytes:
    """The body that the event's webhooks carry, from the event as the API shows it."""
    return orjson.dumps({name: event[name] for name in _FIELDS if name in event})


class Forwarder:
    """Posts to one address. Nothing that the server does ends it."""

    def __init__(self, url: str, secret: str, environment: Environment, note: Callable[[str], None]) -> None:
        self._url = url
        self._signer = Signer([secret])
        self._verifier = Verifier([secret])
        self._around = environment
        self._note = note
        self._http = httpx.Client(timeout=_TIMEOUT, transport=environment.transport, trust_env=False)

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def forward(self, event: dict[str, Any]) -> Outcome:
        """Hand the event over; a refused connection is tried once more, for servers restart while one works on them."""
        body = webhook_body(event)
        outcome = self._post(event["id"], body)
        if outcome.status_code is None:
            self._note(f"{self._url}: {outcome.error}; trying once more")
            self._around.sleep(_RETRY_AFTER_S)
            outcome = self._post(event["id"], body)
            if outcome.status_code is None:
                self._note(f"{self._url} has still no answer; going on with the next event")
        return outcome

    def _post(self, id: str, body: bytes) -> Outcome:
        headers = self._signed(id, body)
        started = time.perf_counter()
        try:
            answer = self._http.post(self._url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = "refused" if isinstance(error, httpx.ConnectError) else type(error).__name__
            return Outcome(None, f"{why} ({error})", time.perf_counter() - started)
        return Outcome(answer.status_code, None, time.perf_counter() - started)

    def _signed(self, id: str, body: bytes) -> dict[str, str]:
        now_s = self._around.now().timestamp()
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
