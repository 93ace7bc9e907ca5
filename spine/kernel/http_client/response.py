"""The outcome of one HTTP call."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The outcome of one attempt. `policies.verdict.judge` judges it.

    `error` is a code of `spine.kernel.http_client.errors`; None if the response is complete. Both a status and an error
    are set if the head arrived and the body did not. `body_excerpt` is the start of the body as sent, not decompressed.
    """

    status: int | None
    error: str | None
    retry_after: str | None
    body_excerpt: bytes
    started_at: datetime
    duration_s: float

    @property
    def ended_at(self) -> datetime:
        """The end of the attempt, from which waits are counted. Never before its start, even if the clock is set back."""
        return self.started_at + timedelta(seconds=self.duration_s)
