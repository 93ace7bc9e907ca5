"""What came back from one call."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One attempt as it went. `policies.verdict.judge` says what it means.

    `error` is a code of `spine.kernel.http_client.errors`, None when a whole answer came; a status may stand beside it, when the
    head arrived and the body did not. `body_excerpt` is the first part of the body as sent, not decompressed.
    """

    status: int | None
    error: str | None
    retry_after: str | None
    body_excerpt: bytes
    started_at: datetime
    duration_s: float

    @property
    def ended_at(self) -> datetime:
        """The end of the attempt, from which waits are counted; never before its start, whatever the clock does."""
        return self.started_at + timedelta(seconds=self.duration_s)
